"""FLAP: audio and text towers into one shared space, and the folder it is kept in."""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import nn
from torch.nn import functional as F
from transformers import (
    AutoConfig,
    AutoModel,
    AutoTokenizer,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from flap.errors import UserError
from flap.model.audio_encoder import AudioEncoder
from flap.model.config import EncoderConfig, ModelConfig
from flap.model.text_encoder import build_text_encoder

_CONFIG, _WEIGHTS, _TEXT, _TOKENIZER = "config.json", "model.safetensors", "text", "tokenizer"


class Flap(nn.Module):
    """Log-mels and captions → L2-normalised embeddings of width E.

    Projection heads and logit scale as in LS-CLAP: Linear-ReLU-Linear, scale from
    ln(1/0.07), clamped to at most ln 100 after each step.
    """

    def __init__(
        self,
        encoder: EncoderConfig,
        model: ModelConfig,
        text_encoder: PreTrainedModel | None = None,
    ) -> None:
        super().__init__()
        self.model_config = model
        self.audio_encoder = AudioEncoder(encoder)
        self.text_encoder: PreTrainedModel = text_encoder or build_text_encoder(model.text)
        self.audio_head = _head(encoder.width, model.embedding)
        self.text_head = _head(self.text_encoder.config.hidden_size, model.embedding)
        self.logit_scale = nn.Parameter(torch.tensor(math.log(1 / model.initial_temperature)))

    def embed_audio(
        self, mel_BTF: torch.Tensor, keep_BK: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Embeddings (B, E) of un-normalised log-mel windows; `keep_BK` as drawn by masking."""
        return F.normalize(self.audio_head(self.audio_encoder.instance(mel_BTF, keep_BK)), dim=-1)

    def embed_text(self, tokens: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """Embeddings (B, E) of tokenised captions, from the text encoder's pooled output."""
        return F.normalize(self.text_head(self.text_encoder(**tokens).pooler_output), dim=-1)

    def forward(
        self,
        mel_BTF: torch.Tensor,
        tokens: Mapping[str, torch.Tensor],
        keep_BK: torch.Tensor | None = None,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Audio and text embeddings of a batch of pairs, (B, E) each."""
        return self.embed_audio(mel_BTF, keep_BK), self.embed_text(tokens)

    @torch.no_grad()
    def clamp_logit_scale(self) -> None:
        """Keep the scale in [0, max]; called after each optimiser step."""
        self.logit_scale.clamp_(0, self.model_config.max_logit_scale)


def _head(width_in: int, width_out: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(width_in, width_out), nn.ReLU(), nn.Linear(width_out, width_out))


@dataclass(frozen=True)
class SavedFlap:
    model: Flap
    tokenizer: PreTrainedTokenizerBase


def save_flap(folder: Path, model: Flap, tokenizer: PreTrainedTokenizerBase) -> None:
    """Write configuration, safetensors, the text encoder's own config, and the tokenizer."""
    folder.mkdir(parents=True, exist_ok=True)
    sections = {
        "encoder": model.audio_encoder.config.model_dump(),
        "model": model.model_config.model_dump(),
    }
    (folder / _CONFIG).write_text(json.dumps(sections, indent=2) + "\n")
    model.text_encoder.config.save_pretrained(folder / _TEXT)
    tokenizer.save_pretrained(folder / _TOKENIZER)
    weights = {name: tensor.contiguous() for name, tensor in model.state_dict().items()}
    save_file(weights, folder / _WEIGHTS)


def load_flap(folder: Path) -> SavedFlap:
    """A model that `save_flap` wrote, in evaluation mode, without asking any hub.

    Raises:
        UserError: the folder is not such a model.
    """
    if not (folder / _WEIGHTS).exists():
        raise UserError(f"{folder}: no FLAP model here ({_WEIGHTS} is missing); run `dvc repro`")
    sections = json.loads((folder / _CONFIG).read_text())
    text_encoder = AutoModel.from_config(AutoConfig.from_pretrained(folder / _TEXT))
    model = Flap(
        EncoderConfig.model_validate(sections["encoder"]),
        ModelConfig.model_validate(sections["model"]),
        text_encoder,
    )
    model.load_state_dict(load_file(folder / _WEIGHTS))
    return SavedFlap(model.eval(), AutoTokenizer.from_pretrained(folder / _TOKENIZER))
