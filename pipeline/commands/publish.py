"""The trained model and its card → a repository on the Hugging Face hub, or a local folder.

    python -m pipeline.commands.publish owner/name
    python -m pipeline.commands.publish --folder DIR

Not a stage: nothing depends on it, and only a person can say that a model may be given away.
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
    private: Annotated[bool, typer.Option("--private", help="make it for your eyes alone")] = False,
    model: Annotated[Path, typer.Option(help="what stage pretrain made")] = Path(
        "data/pretrain/model"
    ),
    card: Annotated[Path, typer.Option(help="what stage report made")] = Path("data/report/card"),
    folder: Annotated[
        Path | None, typer.Option(help="write to this new folder, send nothing")
    ] = None,
) -> None:
    """Publish the trained model with its card, on the hub or into a folder."""
    if (repository is None) == (folder is None):
        raise UserError("name either a repository, owner/name, or a folder by --folder DIR")
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
    """Make the repository if there is none, and send `folder` in one commit.

    Returns:
        The repository's address.

    Raises:
        UserError: there is no token, or the hub refuses or cannot be reached.
    """
    from huggingface_hub import HfApi, get_token
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError
    from huggingface_hub.utils import httpx  # type: ignore[attr-defined]  # httpx or httpx2

    try:
        if get_token() is None:
            raise UserError("no token for the hub: run `hf auth login`, or set HF_TOKEN")
        api = HfApi()
        # None leaves it to the owner's default, where False would make it public.
        address = api.create_repo(repository, private=private or None, exist_ok=True)
        if private and not api.model_info(address.repo_id).private:
            raise UserError(f"{repository}: is there already, and public; --private cannot hide it")
        api.upload_folder(
            repo_id=address.repo_id, folder_path=folder, commit_message="FLAP and its card"
        )
    except HFValidationError as error:
        raise UserError(f"{repository}: not owner/name: {first_line(error)}") from None
    except HfHubHTTPError as error:
        raise UserError(
            f"{repository}: the hub refuses it ({first_line(error)}); the token must be one "
            "that may write there, `hf auth whoami` says whose it is"
        ) from error
    except (ConnectionError, httpx.HTTPError) as error:  # offline mode is a ConnectionError
        raise UserError(
            f"the hub cannot be reached ({first_line(error)}); run again later, or write what "
            "would be sent by --folder DIR and send it from elsewhere by `hf upload`"
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
