"""A model folder that `pretrain` made → model and tokenizer, ready for evaluation."""

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
    """Model and tokenizer of a folder that `pretrain` made, for evaluation and from disk alone.

    Raises:
        UserError: the folder is not such a model, or its weights are not complete.
    """
    if not (folder / _WEIGHTS).exists():
        raise UserError(f"{folder}: no FLAP model here ({_WEIGHTS} is missing); run `dvc repro`")
    loaded: Any = FlapModel.from_pretrained(
        folder, decoder_config=None, local_files_only=True, output_loading_info=True
    )
    model, report = loaded
    if report["missing_keys"]:
        missing = ", ".join(sorted(report["missing_keys"])[:3])
        raise UserError(f"{folder}: weights are missing ({missing}, …); run `dvc repro`")
    return SavedFlap(model.eval(), AutoTokenizer.from_pretrained(folder, local_files_only=True))
