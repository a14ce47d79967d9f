"""One MELS shard → one TAGS shard: the best labels above a threshold for each clip."""

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch

from flap.core.schemas import MELS, TAGS
from flap.core.shards import Row, read_table, write_rows
from flap.mels.reader import MelReader
from flap.model.device import default_device
from flap.model.tagger import SavedTagger, load_tagger
from flap.model.windows import middle_windows
from flap.tagging.config import TaggingConfig


@dataclass(frozen=True)
class Tags:
    """The tags of one clip."""

    labels: list[str]  # best first
    scores: list[float]


def top_tags(
    probability_X: np.ndarray, labels: tuple[str, ...], top_k: int, threshold: float
) -> Tags:
    """At most `top_k` labels with at least the probability `threshold`, best first.

    Args:
        probability_X: one for each of the tagger's X classes.
        labels: names of the classes.
    """
    ranked = np.argsort(-probability_X, kind="stable")[:top_k]
    chosen = [i for i in ranked if probability_X[i] >= threshold]
    return Tags([labels[i] for i in chosen], [float(probability_X[i]) for i in chosen])


_load_cached = lru_cache(maxsize=1)(load_tagger)  # loads once per process, not once per shard


@torch.inference_mode()
def tag_shard(mels: Path, target: Path, tagger: Path, config: TaggingConfig) -> None:
    """Write the shard `target` (TAGS), with one row for each row of `mels`."""
    torch.set_num_threads(1)  # the executor runs one process per core
    saved, device = _load_cached(tagger), default_device()
    model = saved.model.to(device)
    clips = read_table(mels, MELS, ["clip_id"]).to_pandas()
    clips["path"], clips["row"] = str(mels), np.arange(len(clips))
    rows: list[Row] = []
    reader = MelReader()
    for start in range(0, len(clips), config.batch):
        part = clips.iloc[start : start + config.batch]
        windows = middle_windows(reader.read_all(part), model.config.clip_frames, fusion=False)
        logits_BX = model.logits(windows.mel_BCTF.to(device))
        probability_BX = logits_BX.sigmoid().cpu().numpy()
        for clip_id, probability_X in zip(part["clip_id"], probability_BX, strict=True):
            rows.append(_row(clip_id, probability_X, saved, config))
    write_rows(target, rows, TAGS, config.model_dump() | {"tagger_id": saved.tagger_id})


def _row(clip_id: str, probability_X: np.ndarray, saved: SavedTagger, config: TaggingConfig) -> Row:
    tags = top_tags(probability_X, saved.labels, config.top_k, config.threshold)
    return {
        "clip_id": clip_id,
        "labels": tags.labels,
        "scores": tags.scores,
        "tagger_id": saved.tagger_id,
    }
