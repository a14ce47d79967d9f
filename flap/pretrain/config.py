"""Section `pretrain` of params.yaml."""

from typing import Annotated, Literal

from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveInt, model_validator

from flap.config import Section
from flap.model.config import WeightsConfig
from flap.model.masking import MaskConfig
from flap.model.windows import SpecAugment


class PretrainConfig(Section):
    seed: NonNegativeInt
    audio_weights: Literal["tagger", "scratch"] | WeightsConfig  # the audio encoder's start
    captions: Literal["original", "enriched", "both", "none"]  # none: reconstruction alone
    enriched_share: Annotated[float, Field(ge=0.0, le=1.0)]  # of the kept ones, added with both
    mask: MaskConfig
    views: PositiveInt  # masked views of a clip in one step, each contrasted with its caption
    reconstruction_weight: NonNegativeFloat  # of equation 2 beside equation 1; 0: no decoder
    spec_augment: SpecAugment
    epochs: PositiveInt
    batch: PositiveInt  # pairs in a step over all ranks
    learning_rate: float
    betas: tuple[float, float]
    weight_decay: float
    warmup_steps: NonNegativeInt
    gradient_checkpointing: bool  # recompute activations in the backward pass: memory for time
    compile: bool  # the audio Transformer by torch.compile
    shuffle_shards: PositiveInt  # shards shuffled together, so held in memory
    evaluate_every: PositiveInt  # steps between losses on the split `val`
    checkpoint_every: PositiveInt
    loader_workers: NonNegativeInt

    @model_validator(mode="after")
    def _fits(self) -> "PretrainConfig":
        if self.captions == "none" and not self.reconstruction_weight:
            raise ValueError("without captions only reconstruction is trained: set its weight")
        if self.captions != "both" and self.enriched_share != 1.0:
            raise ValueError(
                "pretrain.enriched_share may differ from 1.0 only with pretrain.captions: both"
            )
        return self
