"""Loads a model folder of the stage `pretrain` for evaluation."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from transformers import AutoTokenizer, PreTrainedTokenizerBase

from flap.core.errors import UserError
from flap.model.flap import FlapModel

_WEIGHTS = "model.safetensors"


@dataclass(frozen=True)
class SavedFlap:
    model: FlapModel
    tokenizer: PreTrainedTokenizerBase


def load_flap(folder: Path) -> SavedFlap:
    """Model in evaluation mode and tokenizer, without its decoder and without network access.

    Raises:
        UserError: the folder has no model, or the weights are incomplete.
    """
    if not (folder / _WEIGHTS).exists():
        raise UserError(f"{folder}: not a FLAP model ({_WEIGHTS} is missing); run `dvc repro`")
    loaded: Any = FlapModel.from_pretrained(
        folder, decoder_config=None, local_files_only=True, output_loading_info=True
    )
    model, report = loaded
    if report["missing_keys"]:
        missing = ", ".join(sorted(report["missing_keys"])[:3])
        raise UserError(f"{folder}: weights are missing ({missing}, …); run `dvc repro`")
    return SavedFlap(model.eval(), AutoTokenizer.from_pretrained(folder, local_files_only=True))
