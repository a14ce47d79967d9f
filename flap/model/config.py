"""Sections `encoder` and `model` of params.yaml."""

from pydantic import PositiveInt, model_validator

from flap.config import Section


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
        if self.width % (4 * self.heads):
            raise ValueError("width must be a multiple of 4 * heads")
        return self

    @property
    def grid(self) -> tuple[int, int]:
        """Patches along time and along frequency."""
        return self.clip_frames // self.patch, self.n_mels // self.patch


class TextConfig(Section):
    """A transformers text encoder: `pretrained` names one, or a RoBERTa is built to measure."""

    pretrained: str | None  # directory or hub name; None: from scratch with the sizes below
    vocabulary: PositiveInt
    width: PositiveInt
    depth: PositiveInt
    heads: PositiveInt
    dropout: float
    max_tokens: PositiveInt


class ModelConfig(Section):
    """Text side and shared embedding of FLAP; the audio side is section `encoder`."""

    text: TextConfig
    embedding: PositiveInt
    initial_temperature: float
    max_logit_scale: float
