"""The model that a benchmark names → its embedder; and the embedder of random embeddings."""

from pathlib import Path

import numpy as np
import pandas as pd
import torch
import xxhash
from torch.nn.functional import normalize

from flap.model.device import default_device
from flap.model.saved import load_flap
from flap.retrieval.clap import ClapEmbedder, load_clap
from flap.retrieval.config import OwnFlap, RandomModel, ReleasedClap, RetrievalConfig, ScoredModel
from flap.retrieval.embed import Embedder, FlapEmbedder

_RANDOM_WIDTH = 64


def load_embedder(
    benchmark: str, model: ScoredModel, flap_folder: Path, config: RetrievalConfig
) -> Embedder:
    """Load the model that a benchmark names.

    Args:
        benchmark: the benchmark's name, for error messages.
        flap_folder: the model that the stage `pretrain` wrote.

    Raises:
        UserError: the model cannot be loaded.
    """
    if isinstance(model, RandomModel):
        return RandomEmbedder(model.seed)
    if isinstance(model, ReleasedClap):
        return ClapEmbedder(load_clap(benchmark, model), benchmark, default_device())
    folder = flap_folder if isinstance(model, OwnFlap) else Path(model.source)
    return FlapEmbedder(load_flap(folder), default_device(), pooled=config.long_clips == "pooled")


class RandomEmbedder:
    """Random embeddings, determined by the seed and by the clip's id or the caption."""

    def __init__(self, seed: int) -> None:
        self._seed = seed

    def audio(self, clips: pd.DataFrame) -> torch.Tensor:
        return self._draw([f"clip {clip_id}" for clip_id in clips["clip_id"]])

    def text(self, captions: list[str]) -> torch.Tensor:
        return self._draw([f"text {caption}" for caption in captions])

    def _draw(self, names: list[str]) -> torch.Tensor:
        seeds = [xxhash.xxh3_64_intdigest(name.encode(), seed=self._seed) for name in names]
        rows = [np.random.default_rng(seed).standard_normal(_RANDOM_WIDTH) for seed in seeds]
        return normalize(torch.from_numpy(np.stack(rows)).float(), dim=-1)
