"""Section `pretrain` of params.yaml."""

from typing import Annotated, Literal

from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveInt, model_validator

from flap.core.config import Section
from flap.model.config import MaskConfig, SpecAugment, WeightsConfig

CaptionSource = Literal["original", "enriched", "both", "none"]  # none: only reconstruction


class OptimizerConfig(Section):
    """Settings of AdamW; with a `weight_decay` of 0 it is Adam."""

    betas: tuple[float, float]
    eps: float
    weight_decay: NonNegativeFloat


OPTIMIZERS = {
    # From LS-CLAP's code. The paper prints other betas.
    "ls_clap": OptimizerConfig(betas=(0.9, 0.999), eps=1e-8, weight_decay=0.0),
    "paper": OptimizerConfig(betas=(0.99, 0.9), eps=1e-8, weight_decay=0.0),
}


class PretrainConfig(Section):
    seed: NonNegativeInt
    audio_weights: Literal["tagger", "scratch"] | WeightsConfig  # initial audio encoder
    captions: CaptionSource
    enriched_share: Annotated[float, Field(ge=0.0, le=1.0)]  # with both: share of the kept ones
    mask: MaskConfig
    views: PositiveInt  # masked views of a clip in a step, each contrasted with its caption
    reconstruction_weight: NonNegativeFloat  # of equation 2; equation 1 has 1. 0: no decoder
    spec_augment: SpecAugment
    epochs: PositiveInt
    unmasked_steps: NonNegativeInt  # last steps, trained without a mask, as in FLIP
    batch: PositiveInt  # pairs of a step over all ranks
    micro_batch: PositiveInt | None  # pairs of a forward pass on a rank; null: its full share
    optimizer: Literal["ls_clap", "paper"] | OptimizerConfig
    learning_rate: float
    warmup_steps: NonNegativeInt
    max_gradient_norm: Annotated[float, Field(gt=0.0)] | None  # null: no clipping
    ema_decay: Annotated[float, Field(gt=0.0, lt=1.0)] | None  # null: no weight average
    keep: Literal["last", "best"]  # best: the evaluated step of the highest val_recall_at_10
    gradient_checkpointing: bool  # recompute activations in the backward pass to save memory
    compile: bool  # torch.compile the audio Transformer
    shuffle_shards: PositiveInt  # shards shuffled together
    streams: PositiveInt  # a batch takes equal parts of each stream; see training/order.py
    evaluate_every: PositiveInt  # steps between evaluations on the split `val`
    checkpoint_every: PositiveInt
    loader_workers: NonNegativeInt

    @model_validator(mode="after")
    def _fits(self) -> "PretrainConfig":
        if self.captions == "none" and not self.reconstruction_weight:
            raise ValueError(
                "captions: none trains only reconstruction; set reconstruction_weight above 0"
            )
        if self.captions == "none" and (self.unmasked_steps or self.keep == "best"):
            raise ValueError("captions: none needs unmasked_steps: 0 and keep: last")
        if self.batch % self.streams:
            raise ValueError(f"batch {self.batch} must be a multiple of streams {self.streams}")
        if self.captions != "both" and self.enriched_share != 1.0:
            raise ValueError(
                "pretrain.enriched_share may differ from 1.0 only with pretrain.captions: both"
            )
        return self

    @property
    def adam(self) -> OptimizerConfig:
        """The settings of the optimiser, from the preset if `optimizer` names one."""
        if isinstance(self.optimizer, OptimizerConfig):
            return self.optimizer
        return OPTIMIZERS[self.optimizer]
