"""Sections `encoder` and `model` of params.yaml; masks and weights of other sections."""

from typing import Annotated, Literal

from pydantic import Field, NonNegativeInt, PositiveInt, model_validator

from flap.core.config import Section

Ratio = Annotated[float, Field(ge=0, lt=1)]
Grid = tuple[int, int]
"""Number of patches along time and along frequency."""


class EncoderConfig(Section):
    """Audio ViT of MAViL/AudioMAE, with its window and the normalisation of its input."""

    clip_frames: PositiveInt  # length of the window; clips are padded or cropped to it
    n_mels: PositiveInt
    mel_mean: float
    mel_std: float
    patch: PositiveInt  # side of a square patch, and the stride
    width: PositiveInt
    depth: PositiveInt
    heads: PositiveInt

    @model_validator(mode="after")
    def _fits(self) -> "EncoderConfig":
        if self.clip_frames % self.patch or self.n_mels % self.patch:
            raise ValueError("clip_frames and n_mels must be multiples of patch")
        _check_width(self.width, self.heads)
        return self

    @property
    def grid(self) -> Grid:
        return self.clip_frames // self.patch, self.n_mels // self.patch


class DecoderConfig(Section):
    """Transformer that reconstructs masked patches; the model has it only if it trains them."""

    width: PositiveInt
    depth: PositiveInt
    heads: PositiveInt
    normalise_patches: bool  # normalise each target patch to mean 0, variance 1, as in MAE

    @model_validator(mode="after")
    def _fits(self) -> "DecoderConfig":
        _check_width(self.width, self.heads)
        return self


def _check_width(width: int, heads: int) -> None:
    if width % 4 or width % heads:
        raise ValueError("width must be a multiple of 4 (sin-cos positions) and of heads")


Pooling = Literal["pooler", "mean", "first"]  # the model's pooler, mean token, first token


class ScratchText(Section):
    """A RoBERTa of this size, with a vocabulary learned from the training captions."""

    kind: Literal["scratch"]
    vocabulary: PositiveInt
    width: PositiveInt
    depth: PositiveInt
    heads: PositiveInt
    dropout: float
    pooling: Pooling
    max_tokens: PositiveInt


class PretrainedText(Section):
    """Any transformers text encoder with its tokenizer."""

    kind: Literal["pretrained"]
    source: str  # directory, or name on the hub
    revision: str  # on the hub; ignored for a directory
    pooling: Pooling
    max_tokens: PositiveInt


TextConfig = Annotated[ScratchText | PretrainedText, Field(discriminator="kind")]


class ModelConfig(Section):
    """All parts of FLAP except the audio encoder, which is section `encoder`."""

    text: TextConfig
    fusion: bool  # LS-CLAP's feature fusion of clips longer than the window
    decoder: DecoderConfig
    embedding: PositiveInt
    initial_temperature: float
    max_logit_scale: float


class NoMask(Section):
    kind: Literal["none"]


class Mask1D(Section):
    kind: Literal["1d"]
    ratio: Ratio


class Mask2D(Section):
    kind: Literal["2d"]
    time_ratio: Ratio
    freq_ratio: Ratio
    members: Literal["independent", "shared"]  # drawn per time step, or once per clip


MaskConfig = Annotated[NoMask | Mask1D | Mask2D, Field(discriminator="kind")]


class SpecAugment(Section):
    """Largest widths of the stripes that SpecAugment sets to zero; 0 for no stripe."""

    max_frames: NonNegativeInt
    max_bins: NonNegativeInt


class WeightsConfig(Section):
    """A checkpoint of AudioMAE, MAViL or this project, to initialise an audio encoder."""

    source: str  # file, directory, or hf://owner/name
    revision: str | None  # on the hub; null: main
    sha256: str | None  # hash of the file; null: no check
