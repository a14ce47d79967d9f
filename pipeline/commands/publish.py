"""The trained model and its card → a repository on the Hugging Face hub, or a local folder.

    python -m pipeline.commands.publish owner/name
    python -m pipeline.commands.publish --folder DIR

This is not a stage: a person decides whether a model may be published.
"""

import shutil
import tempfile
from pathlib import Path
from typing import Annotated

import typer

from flap.core.errors import UserError, first_line
from pipeline.stage import run

CARD = "README.md"


def main(
    repository: Annotated[str | None, typer.Argument(help="owner/name on the hub")] = None,
    private: Annotated[bool, typer.Option("--private", help="create a private repository")] = False,
    model: Annotated[Path, typer.Option(help="the model, as stage pretrain wrote it")] = Path(
        "data/pretrain/model"
    ),
    card: Annotated[Path, typer.Option(help="the card, as stage report wrote it")] = Path(
        "data/report/card"
    ),
    folder: Annotated[
        Path | None, typer.Option(help="write to this new folder instead of the hub")
    ] = None,
) -> None:
    """Publish the trained model with its card, on the hub or into a folder."""
    if (repository is None) == (folder is None):
        raise UserError("expected either a repository, owner/name, or --folder DIR")
    _check_inputs(model, card)
    if folder is not None:
        _check_target(folder)
        assemble(model, card, folder)
        print(f"publish: {folder}")
    elif repository is not None:
        with tempfile.TemporaryDirectory() as temporary:
            assemble(model, card, Path(temporary))
            print(f"publish: {upload(Path(temporary), repository, private)}")


def assemble(model: Path, card: Path, target: Path) -> None:
    """Copy the model's folder and its card to `target`."""
    shutil.copytree(model, target, dirs_exist_ok=True)
    shutil.copyfile(card / CARD, target / CARD)


def upload(folder: Path, repository: str, private: bool) -> str:
    """Create the repository if necessary, and upload `folder` in one commit.

    Returns:
        The repository's URL.

    Raises:
        UserError: there is no token, the hub refuses the upload, or it cannot be reached.
    """
    from huggingface_hub import HfApi, get_token
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError
    from huggingface_hub.utils import httpx  # type: ignore[attr-defined]  # httpx or httpx2

    try:
        if get_token() is None:
            raise UserError("no token for the hub: run `hf auth login`, or set HF_TOKEN")
        api = HfApi()
        # None means the owner's default; False would make the repository public.
        address = api.create_repo(repository, private=private or None, exist_ok=True)
        if private and not api.model_info(address.repo_id).private:
            raise UserError(
                f"{repository}: exists and is public, which --private does not change; make it "
                "private on the hub, or name another"
            )
        api.upload_folder(
            repo_id=address.repo_id, folder_path=folder, commit_message="FLAP and its card"
        )
    except HFValidationError as error:
        raise UserError(f"{repository}: not owner/name: {first_line(error)}") from None
    except HfHubHTTPError as error:
        raise UserError(
            f"{repository}: the hub refuses the upload ({first_line(error)}); the token must have "
            "write access there, `hf auth whoami` shows its owner"
        ) from error
    except (ConnectionError, httpx.HTTPError) as error:  # offline mode is a ConnectionError
        raise UserError(
            f"the hub cannot be reached ({first_line(error)}); run again later, or write the files "
            "with --folder DIR and upload them from another machine with `hf upload`"
        ) from error
    return str(address)


def _check_inputs(model: Path, card: Path) -> None:
    if not (model / "config.json").exists() or not list(model.glob("*.safetensors")):
        raise UserError(f"{model}: no model yet; run `dvc repro`")
    if not (card / CARD).exists():
        raise UserError(f"{card}: no model card yet; run `dvc repro`")


def _check_target(folder: Path) -> None:
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UserError(f"{folder}: exists and is not an empty folder; name another")


if __name__ == "__main__":
    run(main)
