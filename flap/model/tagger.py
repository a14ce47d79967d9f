"""Sound-event tagger: the audio encoder with MAViL's fine-tuning head on top."""

import json
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import nn

from flap.core.errors import UserError
from flap.model.audio_encoder import AudioEncoder, pool
from flap.model.config import EncoderConfig
from flap.model.transformer import NORM_EPS

_INITIAL_LOGIT = -6.0  # of each class, since a clip has few of the 527 classes
_CONFIG, _WEIGHTS = "config.json", "model.safetensors"


class Tagger(AudioEncoder):
    """Log-mel window → a logit for each class: mean of patch tokens, `fc_norm`, `head`.

    The state dict has the keys of a fine-tuned AudioMAE: those of the encoder plus `fc_norm.*` and
    `head.*`, without the `norm.*` that follows the encoder's blocks.
    """

    def __init__(self, config: EncoderConfig, n_classes: int) -> None:
        super().__init__(config)
        self.norm = nn.Identity()  # type: ignore[assignment]
        self.fc_norm = nn.LayerNorm(config.width, eps=NORM_EPS)
        self.head = nn.Linear(config.width, n_classes)
        nn.init.normal_(self.head.weight, std=0.02)
        nn.init.constant_(self.head.bias, _INITIAL_LOGIT)

    def logits(self, mel_BCTF: torch.Tensor, keep_BK: torch.Tensor | None = None) -> torch.Tensor:
        """Class logits (B, n_classes) of un-normalised log-mel windows."""
        return self.head(self.fc_norm(pool(self(mel_BCTF, keep_BK))))


@dataclass(frozen=True)
class SavedTagger:
    model: Tagger
    labels: tuple[str, ...]  # class of each logit
    tagger_id: str  # hash of the weights


def save_tagger(folder: Path, model: Tagger, labels: tuple[str, ...]) -> None:
    """Write configuration, labels and weights to `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    content = {"encoder": model.config.model_dump(), "labels": labels}
    (folder / _CONFIG).write_text(json.dumps(content, indent=2) + "\n")
    save_file({name: t.contiguous() for name, t in model.state_dict().items()}, folder / _WEIGHTS)


def load_tagger(folder: Path) -> SavedTagger:
    """Load a tagger that `save_tagger` wrote, in evaluation mode.

    Raises:
        UserError: the folder has no tagger.
    """
    weights = folder / _WEIGHTS
    if not weights.exists():
        raise UserError(f"{folder}: not a tagger ({_WEIGHTS} is missing); run `dvc repro`")
    content = json.loads((folder / _CONFIG).read_text())
    model = Tagger(EncoderConfig.model_validate(content["encoder"]), len(content["labels"]))
    model.load_state_dict(load_file(weights))
    tagger_id = sha256(weights.read_bytes()).hexdigest()[:16]
    return SavedTagger(model.eval(), tuple(content["labels"]), tagger_id)
