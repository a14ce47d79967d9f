"""Sections `encoder` and `model` of params.yaml, and `weights` wherever a stage takes some."""

from typing import Annotated, Literal

from pydantic import Field, PositiveInt, model_validator

from flap.core.config import Section


class EncoderConfig(Section):
    """Audio ViT of MAViL/AudioMAE with the window and normalisation it sees mels through."""

    clip_frames: PositiveInt  # window: shorter clips are padded, longer ones cropped
    n_mels: PositiveInt
    mel_mean: float
    mel_std: float
    patch: PositiveInt  # side of a square patch, also the stride
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
    def grid(self) -> tuple[int, int]:
        """Patches along time and along frequency."""
        return self.clip_frames // self.patch, self.n_mels // self.patch


class DecoderConfig(Section):
    """Transformer that reconstructs masked patches; built only where reconstruction is trained."""

    width: PositiveInt
    depth: PositiveInt
    heads: PositiveInt
    normalise_patches: bool  # targets of mean 0 and variance 1 in each patch, as MAE's option

    @model_validator(mode="after")
    def _fits(self) -> "DecoderConfig":
        _check_width(self.width, self.heads)
        return self


def _check_width(width: int, heads: int) -> None:
    if width % 4 or width % heads:
        raise ValueError("width must be a multiple of 4 (sin-cos positions) and of heads")


Pooling = Literal["pooler", "mean", "first"]  # the model's own pooler, or over its tokens


class ScratchText(Section):
    """A RoBERTa of these sizes, its vocabulary learned from the training captions."""

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
    source: str  # directory or hub name
    revision: str  # of the hub; of no effect on a directory
    pooling: Pooling
    max_tokens: PositiveInt


TextConfig = Annotated[ScratchText | PretrainedText, Field(discriminator="kind")]


class ModelConfig(Section):
    """What FLAP has beside the audio encoder, which is section `encoder`."""

    text: TextConfig
    fusion: bool  # feature fusion of LS-CLAP for clips longer than the window
    decoder: DecoderConfig
    embedding: PositiveInt
    initial_temperature: float
    max_logit_scale: float


class WeightsConfig(Section):
    """A checkpoint of the AudioMAE family, or of ours, that an audio encoder starts from."""

    source: str  # file, directory, or hf://owner/name
    revision: str | None  # of the hub; null: its main
    sha256: str | None  # of the file; null: not checked
