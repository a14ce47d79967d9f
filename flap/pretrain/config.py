"""Section `pretrain` of params.yaml."""

from typing import Literal

from pydantic import NonNegativeInt, PositiveInt

from flap.config import Section
from flap.model.masking import MaskConfig


class PretrainConfig(Section):
    seed: NonNegativeInt
    audio_weights: Literal["tagger", "scratch"]  # what the audio encoder starts from
    captions: Literal["original", "enriched", "both"]  # which captions make pairs
    mask: MaskConfig
    epochs: PositiveInt
    batch: PositiveInt  # pairs in a step over all ranks
    learning_rate: float
    betas: tuple[float, float]
    weight_decay: float
    warmup_steps: NonNegativeInt
    shuffle_shards: PositiveInt  # shards shuffled together, so held in memory
    evaluate_every: PositiveInt  # steps between losses on the split `val`
    checkpoint_every: PositiveInt
    loader_workers: NonNegativeInt
