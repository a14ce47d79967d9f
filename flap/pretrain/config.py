"""Section `pretrain` of params.yaml."""

from typing import Annotated, Literal

from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveInt, model_validator

from flap.core.config import Section
from flap.model.config import WeightsConfig
from flap.model.masking import MaskConfig
from flap.model.windows import SpecAugment

Captions = Literal["original", "enriched", "both", "none"]  # none: reconstruction alone


class OptimizerConfig(Section):
    """AdamW's; without decay it is Adam."""

    betas: tuple[float, float]
    eps: float
    weight_decay: NonNegativeFloat


OPTIMIZERS = {
    # LS-CLAP's code; the paper prints other betas.
    "ls_clap": OptimizerConfig(betas=(0.9, 0.999), eps=1e-8, weight_decay=0.0),
    "paper": OptimizerConfig(betas=(0.99, 0.9), eps=1e-8, weight_decay=0.0),
}


class PretrainConfig(Section):
    seed: NonNegativeInt
    audio_weights: Literal["tagger", "scratch"] | WeightsConfig  # the audio encoder's start
    captions: Captions
    enriched_share: Annotated[float, Field(ge=0.0, le=1.0)]  # of the kept ones, added with both
    mask: MaskConfig
    views: PositiveInt  # masked views of a clip in one step, each contrasted with its caption
    reconstruction_weight: NonNegativeFloat  # of equation 2 beside equation 1; 0: no decoder
    spec_augment: SpecAugment
    epochs: PositiveInt
    unmasked_steps: NonNegativeInt  # the last steps, which see all of a clip, as in FLIP
    batch: PositiveInt  # pairs in a step over all ranks
    micro_batch: PositiveInt | None  # pairs in a rank's memory at a time; null: its whole share
    optimizer: Literal["ls_clap", "paper"] | OptimizerConfig
    learning_rate: float
    warmup_steps: NonNegativeInt
    max_gradient_norm: Annotated[float, Field(gt=0.0)] | None  # null: gradients are not clipped
    ema_decay: Annotated[float, Field(gt=0.0, lt=1.0)] | None  # null: no average of the weights
    keep: Literal["last", "best"]  # best: the evaluated step of highest val_recall_at_10
    gradient_checkpointing: bool  # recompute activations in the backward pass: memory for time
    compile: bool  # the audio Transformer by torch.compile
    shuffle_shards: PositiveInt  # shards shuffled together
    streams: PositiveInt  # parts of a batch, each from shards of its own; ranks share them out
    evaluate_every: PositiveInt  # steps between evaluations on the split `val`
    checkpoint_every: PositiveInt
    loader_workers: NonNegativeInt

    @model_validator(mode="after")
    def _fits(self) -> "PretrainConfig":
        if self.captions == "none" and not self.reconstruction_weight:
            raise ValueError("without captions only reconstruction is trained: set its weight")
        if self.captions == "none" and (self.unmasked_steps or self.keep == "best"):
            raise ValueError("without captions there are no unmasked_steps, and keep is last")
        if self.batch % self.streams:
            raise ValueError(f"streams {self.streams} does not divide batch {self.batch}")
        if self.captions != "both" and self.enriched_share != 1.0:
            raise ValueError(
                "pretrain.enriched_share may differ from 1.0 only with pretrain.captions: both"
            )
        return self

    @property
    def adam(self) -> OptimizerConfig:
        """The optimiser's settings, a preset's or one's own."""
        if isinstance(self.optimizer, OptimizerConfig):
            return self.optimizer
        return OPTIMIZERS[self.optimizer]
