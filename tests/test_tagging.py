"""Stage `tagging`: the best labels above the threshold, and one row for each clip."""

from pathlib import Path

import numpy as np
import torch
from conftest import SOUNDS, Corpus
from test_tagger import ENCODER

from flap.core.schemas import TAGS
from flap.core.shards import read_table, shard_paths
from flap.model.tagger import Tagger, load_tagger, save_tagger
from flap.tagging.config import TaggingConfig
from flap.tagging.tag import Tags, tag_shard, top_tags


def test_top_tags_are_best_first_and_bounded() -> None:
    probability = np.array([0.2, 0.9, 0.5])
    assert top_tags(probability, SOUNDS, 3, 0.5) == Tags(["Bark", "Siren"], [0.9, 0.5])
    assert top_tags(probability, SOUNDS, 1, 0.0).labels == ["Bark"]
    assert top_tags(probability, SOUNDS, 3, 0.95) == Tags([], [])


def test_each_clip_has_a_row(corpus: Corpus, tmp_path: Path) -> None:
    torch.manual_seed(0)
    save_tagger(tmp_path / "tagger", Tagger(ENCODER, 3), SOUNDS)
    config = TaggingConfig(batch=4, top_k=2, threshold=0.0)
    (mels, *_) = shard_paths(corpus.mels / "toy")
    tag_shard(mels, tmp_path / "out.parquet", tagger=tmp_path / "tagger", config=config)
    rows = read_table(tmp_path / "out.parquet", TAGS).to_pylist()
    assert [row["clip_id"] for row in rows] == [f"toy/{i}" for i in range(10)]
    for row in rows:
        assert len(row["labels"]) == 2 and row["scores"] == sorted(row["scores"], reverse=True)
        assert row["tagger_id"] == load_tagger(tmp_path / "tagger").tagger_id
