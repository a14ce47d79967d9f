"""A checkpoint from the Hugging Face hub, or from a local directory."""

import shutil
from pathlib import Path

from flap.core.errors import UserError, first_line
from flap.llm.config import LlmConfig

# Only safetensors weights: pickled weights can run code when they are loaded.
_WANTED = [
    "*.safetensors",
    "*.json",
    "*.jinja",
    "tokenizer.model",
    "merges.txt",
    "vocab.txt",
    "LICENSE*",
    "NOTICE*",
]
_UNWANTED = ["*/*", "*.bin.index.json", "consolidated*"]


def download(config: LlmConfig, folder: Path) -> None:
    """Download `config.source` at `config.revision` to `folder`; resumes a killed download.

    Raises:
        UserError: the repository or revision does not exist, needs a licence to be accepted, or
            the hub cannot be reached.
    """
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import (
        GatedRepoError,
        HfHubHTTPError,
        LocalEntryNotFoundError,
        OfflineModeIsEnabled,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    wanted = f"{config.source} at revision {config.revision or 'main'}"
    try:
        snapshot_download(
            config.source,
            revision=config.revision or None,
            local_dir=folder,
            allow_patterns=_WANTED,
            ignore_patterns=_UNWANTED,
        )
    except GatedRepoError:
        raise UserError(
            f"llm.source: {wanted} is gated; accept its terms on the hub and set HF_TOKEN"
        ) from None
    except RevisionNotFoundError:
        raise UserError(f"llm.revision: the hub has no {wanted}") from None
    except RepositoryNotFoundError:
        raise UserError(f"llm.source: the hub has no repository {config.source}") from None
    except (LocalEntryNotFoundError, OfflineModeIsEnabled, HfHubHTTPError, OSError) as error:
        raise UserError(
            f"the hub cannot be reached for {wanted} ({first_line(error)}); copy the checkpoint "
            "to a local directory, and set llm.kind: local and llm.source to that directory"
        ) from error
    shutil.rmtree(folder / ".cache", ignore_errors=True)


def copy_directory(config: LlmConfig, folder: Path) -> None:
    """Copy the files of the directory `config.source` to `folder`, without pickles and code.

    Raises:
        UserError: `config.source` is not a directory.
    """
    source = Path(config.source)
    if not source.is_dir():
        raise UserError(f"llm.source: {source} is not a directory")
    unwanted = {".bin", ".pt", ".pth", ".py", ".pkl"}
    for path in sorted(source.iterdir()):
        if not path.is_file() or path.suffix in unwanted:
            continue
        shutil.copyfile(path, folder / path.name)
