"""One benchmark of params.yaml → its clips and its rows of RANKS."""

from collections.abc import Iterator
from pathlib import Path

import pandas as pd

from flap.core.schemas import SPLITS
from flap.core.shards import Row
from flap.mels.clips import usable_clips
from flap.retrieval.audio_text import rank_retrieval
from flap.retrieval.classification import rank_linear_probe, rank_zero_shot
from flap.retrieval.config import (
    BenchmarkConfig,
    LinearProbeTask,
    RetrievalConfig,
    RetrievalTask,
)
from flap.retrieval.embed import Embedder


def read_clips(task: BenchmarkConfig, clips: Path, mels: Path) -> pd.DataFrame:
    """The clips that `rank_benchmark` needs, as `flap.mels.clips.usable_clips` gives them.

    Retrieval needs the clips of its split. Classification needs all splits, because the labels of
    the whole corpus are its classes.

    Args:
        clips, mels: folders of CLIPS and of MELS folders, as of `usable_clips`.
    """
    splits = [task.split] if isinstance(task, RetrievalTask) else SPLITS
    return usable_clips(clips, mels, [task.dataset], splits)


def rank_benchmark(
    name: str,
    task: BenchmarkConfig,
    clips: pd.DataFrame,
    embedder: Embedder,
    config: RetrievalConfig,
) -> Iterator[Row]:
    """Embed and rank; `clips` as `read_clips` gives them.

    Raises:
        UserError: no clip can be ranked, or a recording cannot be read.
    """
    if isinstance(task, RetrievalTask):
        return rank_retrieval(name, clips, embedder, config)
    if isinstance(task, LinearProbeTask):
        return rank_linear_probe(name, task, clips, embedder, config)
    return rank_zero_shot(name, task, clips, embedder, config)
