"""Section `pretrain` of params.yaml."""

from typing import Literal

from flap.config import Section
from flap.model.masking import MaskConfig


class PretrainConfig(Section):
    seed: int
    audio_weights: Literal["tagger", "scratch"]  # what the audio encoder starts from
    captions: Literal["original", "enriched", "both"]  # which captions make pairs
    mask: MaskConfig
    epochs: int
    batch: int  # pairs in a step over all ranks
    learning_rate: float
    betas: tuple[float, float]
    weight_decay: float
    warmup_steps: int
    shuffle_shards: int  # shards shuffled together, so held in memory
    evaluate_every: int  # steps between losses on the split `val`
    checkpoint_every: int
    loader_workers: int
