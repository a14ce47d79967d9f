"""Section `tagger` of params.yaml; the encoder's sizes are in section `encoder`."""

from typing import Literal

from pydantic import NonNegativeInt, PositiveInt

from flap.core.config import Section
from flap.model.config import MaskConfig, SpecAugment, WeightsConfig


class TaggerConfig(Section):
    """The tagger: its initial weights, its training, and its evaluation."""

    seed: NonNegativeInt
    weights: WeightsConfig | None  # a released checkpoint to start from; null: random weights
    mask: MaskConfig  # tokens removed in training, as AudioMAE does in fine-tuning
    spec_augment: SpecAugment
    epochs: NonNegativeInt  # 0: no training; `weights` must then have a head
    batch: PositiveInt
    learning_rate: float
    betas: tuple[float, float]
    weight_decay: float
    warmup_steps: NonNegativeInt
    shuffle_shards: PositiveInt
    checkpoint_every: PositiveInt  # steps
    holdout_split: Literal["val", "test"]  # for mAP; never used for training
    loader_workers: NonNegativeInt
