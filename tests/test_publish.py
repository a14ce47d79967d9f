"""Publishing: a folder that works as its card says, uploads, and error messages."""

import re
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from conftest import FRONT_END
from huggingface_hub import RepoUrl
from huggingface_hub.errors import EntryNotFoundError, HfHubHTTPError, OfflineModeIsEnabled
from huggingface_hub.utils import httpx
from small_models import CAPTIONS, ENCODER, MODEL, TEXT

from flap import FlapModel
from flap.core.errors import UserError
from flap.model.flap import build_flap
from flap.model.text_encoder import build_tokenizer
from flap.processor.processor import build_processor
from pipeline.commands import publish

ROOT = Path(__file__).parents[1]
TEMPLATE = ROOT / "flap" / "report" / "templates" / "card.md.j2"
REPOSITORY = "someone/flap-demo"


@pytest.fixture(scope="module")
def model() -> FlapModel:
    torch.manual_seed(0)
    return build_flap(ENCODER, MODEL, with_decoder=True).eval()


@pytest.fixture
def folders(model: FlapModel, tmp_path: Path) -> tuple[Path, Path]:
    """(model, card) as the stages write them."""
    folder, card = tmp_path / "model", tmp_path / "card"
    model.save_pretrained(folder)
    build_processor(model, build_tokenizer(TEXT, CAPTIONS), FRONT_END).save_pretrained(folder)
    card.mkdir()
    (card / "README.md").write_text("---\nlicense: other\n---\n\n# FLAP\n")
    return folder, card


class Hub:
    """A fake hub that stores uploads in `received`."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, received: Path) -> None:
        self.received, self.private = received, True
        self.calls: list[tuple[str, bool | None, bool]] = []  # repository, private, exist_ok
        for name in ("create_repo", "model_info", "upload_folder", "create_commit"):
            method = getattr(self, name)
            monkeypatch.setattr(
                f"huggingface_hub.HfApi.{name}", lambda _, *a, m=method, **k: m(*a, **k)
            )
        monkeypatch.setattr("huggingface_hub.repocard.hf_hub_download", self.no_such_file)
        monkeypatch.setenv("HF_TOKEN", "hf_test")

    def create_repo(self, repo_id: str, **options: Any) -> RepoUrl:
        self.calls.append((repo_id, options["private"], options["exist_ok"]))
        return RepoUrl(f"https://huggingface.co/{repo_id}")

    def model_info(self, repo_id: str) -> SimpleNamespace:
        return SimpleNamespace(private=self.private)

    def upload_folder(self, *, repo_id: str, folder_path: Path, commit_message: str) -> None:
        shutil.copytree(folder_path, self.received / repo_id)

    def create_commit(self, *, repo_id: str, operations: Any, **_: Any) -> None:
        for operation in operations:
            target = self.received / repo_id / operation.path_in_repo
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(operation.path_or_fileobj, target)

    def no_such_file(self, *_: Any, **__: Any) -> str:
        raise EntryNotFoundError("no README.md yet")


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Hub:
    return Hub(monkeypatch, tmp_path / "hub")


def names(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


def test_the_folder_works_as_the_card_says(folders: tuple[Path, Path], tmp_path: Path) -> None:
    target = tmp_path / "published"
    publish.main(model=folders[0], card=folders[1], folder=target)
    assert names(target) == names(folders[0]) | {"README.md"}
    (code,) = re.findall(r"```python\n(.*?)```", TEMPLATE.read_text(), flags=re.DOTALL)
    scope: dict[str, Any] = {"folder": target, "sampling_rate": 16000}
    scope["waveform"] = np.random.default_rng(0).normal(0, 0.1, 16000).astype(np.float32)
    exec(code, scope)
    assert scope["similarity"].shape == (1, 1)
    assert abs(scope["similarity"].item()) <= 1 + 1e-5


def test_model_and_card_are_uploaded_and_the_url_printed(
    folders: tuple[Path, Path], hub: Hub, capsys: pytest.CaptureFixture[str]
) -> None:
    publish.main(REPOSITORY, model=folders[0], card=folders[1])
    assert hub.calls == [(REPOSITORY, None, True)]
    sent = hub.received / REPOSITORY
    assert names(sent) == names(folders[0]) | {"README.md"}
    for name in ("model.safetensors", "config.json"):
        assert (sent / name).read_bytes() == (folders[0] / name).read_bytes()
    assert (sent / "README.md").read_bytes() == (folders[1] / "README.md").read_bytes()
    assert f"https://huggingface.co/{REPOSITORY}\n" in capsys.readouterr().out


def test_private_uploads_never_reach_a_public_repository(
    folders: tuple[Path, Path], hub: Hub
) -> None:
    publish.main(REPOSITORY, private=True, model=folders[0], card=folders[1])
    assert hub.calls == [(REPOSITORY, True, True)]
    hub.private = False
    with pytest.raises(UserError, match="public"):
        publish.main("someone/other", private=True, model=folders[0], card=folders[1])
    assert not (hub.received / "someone/other").exists()


def test_missing_inputs_are_named_before_anything_is_written(
    folders: tuple[Path, Path], tmp_path: Path, hub: Hub
) -> None:
    model, card = folders
    target, taken = tmp_path / "new", tmp_path / "taken"
    taken.mkdir()
    (taken / "file").touch()
    with pytest.raises(UserError, match="no model yet; run `dvc repro`"):
        publish.main(model=tmp_path / "none", card=card, folder=target)
    with pytest.raises(UserError, match="no model card yet; run `dvc repro`"):
        publish.main(model=model, card=tmp_path / "none", folder=target)
    for place in (taken, taken / "file"):
        with pytest.raises(UserError, match="not an empty folder"):
            publish.main(model=model, card=card, folder=place)
    for both_or_none in ({}, {"repository": REPOSITORY, "folder": target}):
        with pytest.raises(UserError, match="either a repository"):
            publish.main(model=model, card=card, **both_or_none)  # type: ignore[arg-type]
    assert not target.exists()
    assert names(taken) == {"file"}
    assert hub.calls == []


def refusal() -> HfHubHTTPError:
    request = httpx.Request("POST", "https://huggingface.co/api/repos/create")
    return HfHubHTTPError("403 Forbidden\nmore", response=httpx.Response(403, request=request))


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (refusal(), r"refuses the upload \(403 Forbidden\); the token must have write access"),
        (OfflineModeIsEnabled("offline"), r"cannot be reached \(offline\).*--folder DIR"),
        (httpx.ConnectError("no route"), r"cannot be reached \(no route\).*--folder DIR"),
    ],
)
def test_the_hubs_errors_say_what_to_do(
    error: Exception,
    message: str,
    folders: tuple[Path, Path],
    hub: Hub,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise error

    monkeypatch.setattr("huggingface_hub.HfApi.create_repo", fail)
    with pytest.raises(UserError, match=message):
        publish.main(REPOSITORY, model=folders[0], card=folders[1])


def test_a_token_and_a_proper_name_are_needed(
    folders: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.get_token", lambda: None)
    with pytest.raises(UserError, match="hf auth login"):
        publish.main(REPOSITORY, model=folders[0], card=folders[1])
    monkeypatch.setattr("huggingface_hub.get_token", lambda: "hf_test")
    with pytest.raises(UserError, match="a/b/c: not owner/name"):
        publish.main("a/b/c", model=folders[0], card=folders[1])


def test_push_to_hub_uploads_a_model_that_loads(model: FlapModel, hub: Hub) -> None:
    model.push_to_hub(REPOSITORY)
    sent = hub.received / REPOSITORY
    assert {"config.json", "model.safetensors"} <= names(sent)
    again = FlapModel.from_pretrained(sent)
    for name, weight in model.state_dict().items():
        assert torch.equal(weight, again.state_dict()[name]), name
