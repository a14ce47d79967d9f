"""The checkpoint directory, its checks, and its manifest.

Files: config.json, *.safetensors, tokenizer files, and the manifest flap_llm.json, written last.
"""

import hashlib
import json
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from flap.core.errors import UserError
from flap.llm.config import LlmConfig

MANIFEST = "flap_llm.json"


class Manifest(BaseModel):
    """The source of a checkpoint, and the facts that the stage `captions` needs."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    kind: str
    source: str
    revision: str
    sha256: str  # of the weight files, in the order of their names
    licence: str
    has_chat_template: bool


def write_manifest(folder: Path, config: LlmConfig) -> Manifest:
    """Check `folder` and write its manifest; the last step of making a checkpoint.

    Raises:
        UserError: as `check_checkpoint`.
    """
    check_checkpoint(folder)
    manifest = Manifest(
        name=config.name,
        kind=config.kind,
        source=config.source,
        revision=config.revision,
        sha256=weights_sha256(folder),
        licence=config.licence,
        has_chat_template=has_chat_template(folder),
    )
    (folder / MANIFEST).write_text(manifest.model_dump_json(indent=2) + "\n")
    return manifest


def read_manifest(folder: Path) -> Manifest:
    """The manifest of a checkpoint that the stage `llm` made.

    Raises:
        UserError: the manifest is missing or invalid.
    """
    try:
        return Manifest.model_validate_json((folder / MANIFEST).read_text())
    except FileNotFoundError:
        raise UserError(f"{folder}: no {MANIFEST}; run the stage llm") from None
    except ValidationError as error:
        raise UserError(f"{folder / MANIFEST}: {error}; run the stage llm again") from None


def check_checkpoint(folder: Path) -> None:
    """Check that vLLM can serve `folder` without running code from the checkpoint.

    Raises:
        UserError: a file is missing, or config.json refers to code.
    """
    config = folder / "config.json"
    if not config.exists():
        raise UserError(f"{folder}: no config.json; is this a transformers checkpoint?")
    if not weight_files(folder):
        raise UserError(
            f"{folder}: no *.safetensors; pickled weights are not loaded. Set llm.revision to one "
            "with safetensors, or convert the model and set llm.kind: local"
        )
    if not any((folder / name).exists() for name in ("tokenizer.json", "tokenizer.model")):
        raise UserError(f"{folder}: no tokenizer.json or tokenizer.model")
    if "auto_map" in _read_json(config):
        raise UserError(
            f"{folder}: config.json refers to code in the checkpoint (auto_map), "
            "which is never run; choose a model that transformers supports"
        )


def weight_files(folder: Path) -> list[Path]:
    return sorted(folder.glob("*.safetensors"))


def weights_sha256(folder: Path) -> str:
    """SHA-256 of the bytes of all weight files, in the order of their names."""
    digest = hashlib.sha256()
    for path in weight_files(folder):
        with path.open("rb") as file:
            while block := file.read(1 << 20):
                digest.update(block)
    return digest.hexdigest()


def has_chat_template(folder: Path) -> bool:
    if (folder / "chat_template.jinja").exists():
        return True
    tokenizer_config = folder / "tokenizer_config.json"
    return tokenizer_config.exists() and bool(_read_json(tokenizer_config).get("chat_template"))


def _read_json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text())
    except json.JSONDecodeError as error:
        raise UserError(f"{path}: not valid JSON: {error}") from None
    if not isinstance(content, dict):
        raise UserError(f"{path}: expected a JSON object")
    return content
