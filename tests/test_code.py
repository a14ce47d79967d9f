"""What an edit reruns: by the code that is computed for each stage, by DVC, in unfinished work."""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from flap.core import code
from flap.core.code import LEFT_OUT, UNUSED_IMPORTS, import_closure, module_file, stage_code
from flap.core.config import read_params
from flap.core.work import fingerprint
from pipeline.code import main, stage_names

ROOT = Path(__file__).parents[1]
STAGES = [stage for stage in read_params(ROOT / "dvc.yaml")["stages"] if stage != "code"]
MASKING = {"flops", "page", "pretrain", "tagger"}  # evaluation has no masks


def append(text: str) -> Callable[[str], str]:
    return lambda source: source + text


def replace(old: str, new: str) -> Callable[[str], str]:
    def edit(source: str) -> str:
        assert old in source
        return source.replace(old, new, 1)

    return edit


def new_docstring(source: str) -> str:
    return re.sub(r'\A"""[\s\S]*?"""', '"""Other words."""', source)


EDITS: dict[str, tuple[str, Callable[[str], str], set[str]]] = {
    "comment": ("flap/model/masking.py", append("# another comment\n"), set()),
    "docstring": ("flap/core/schemas.py", new_docstring, set()),
    "formatting": ("flap/audio/fbank.py", replace("\n\n\n", "\n\n\n\n\n"), set()),
    "line of masking": ("flap/model/masking.py", append("_NEW = 1\n"), MASKING),
    "report's template": ("flap/report/templates/report.html.j2", append("<p>new</p>"), {"report"}),
    "message of the launcher": (
        "pipeline/launch/launcher.py",
        replace("expected one of torchrun, ray", "choose torchrun or ray"),
        set(),
    ),
    "message of a stage's start": ("pipeline/stage.py", replace("run again", "start again"), set()),
    "executor": ("flap/core/executor.py", append("_NEW = 1\n"), set()),
    "a prompt": ("flap/captions/prompts/few_shot.yaml", append("# new\n"), {"captions"}),
    "the classes": (
        "flap/core/audioset_labels.csv",
        append("\n"),
        {"captions", "sources", "tagger"},
    ),
}


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A copy of the source."""
    for name in ("flap", "pipeline"):
        skip = shutil.ignore_patterns("__pycache__")
        shutil.copytree(ROOT / name, tmp_path / name, ignore=skip)
    return tmp_path


def edit(project: Path, name: str) -> set[str]:
    """Make the edit of this name; the stages whose code it should change."""
    file, change, stages = EDITS[name]
    path = project / file
    path.write_text(change(path.read_text()))
    for read in (code._tree, code.imports, code._data_files, code._hash_module):
        read.cache_clear()  # files do not change under a stage, so the module never does this
    return stages


@pytest.mark.parametrize("name", EDITS)
def test_an_edit_changes_the_code_of_the_stages_that_it_can_affect(
    project: Path, name: str
) -> None:
    before = {stage: stage_code(stage, project) for stage in stage_names(project)}
    expected = edit(project, name)
    after = {stage: stage_code(stage, project) for stage in before}
    assert {stage for stage in before if before[stage] != after[stage]} == expected


def test_unfinished_work_follows_the_same_code(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def of_project(stage: str) -> str:
        return stage_code(stage, project)

    monkeypatch.setattr("flap.core.work.stage_code", of_project)
    first = fingerprint("pretrain", [])
    edit(project, "report's template")
    assert fingerprint("pretrain", []) == first
    edit(project, "line of masking")
    assert fingerprint("pretrain", []) != first


@pytest.mark.slow
def test_dvc_reruns_what_an_edit_changes_and_nothing_else(project: Path) -> None:
    """The graph of dvc.yaml with commands that only write their outputs."""
    stages = read_params(ROOT / "dvc.yaml")["stages"]
    for name, stage in stages.items():
        body = stage.get("do", stage)
        if name != "code":
            body["cmd"] = " && ".join(map(written, written_paths(body)))
    graph = {"stages": stages}
    YAML(typ="safe", pure=True).dump(graph, (project / "dvc.yaml").open("w"))
    shutil.copy(ROOT / "params.yaml", project)
    run(project, "init", "--no-scm", "--quiet")
    assert repro(project) == {"code", *STAGES}
    assert repro(project) == {"code"}
    for name in ("docstring", "message of the launcher", "report's template", "line of masking"):
        expected = edit(project, name) & set(STAGES)
        assert repro(project) == {"code", *expected}, name


def written_paths(body: dict[str, Any]) -> list[str]:
    entries = [each for key in ("outs", "metrics", "plots") for each in body.get(key, [])]
    return [entry if isinstance(entry, str) else next(iter(entry)) for entry in entries]


def written(path: str) -> str:
    """A command that writes a file, or a folder with one file, always of the same content."""
    if path.endswith((".json", ".csv")):
        return f"mkdir -p $(dirname {path}) && echo '{{}}' > {path}"
    return f"mkdir -p {path} && echo made > {path}/file"


def run(project: Path, *arguments: str) -> str:
    argv = [sys.executable, "-m", "dvc", *arguments]
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    environ = os.environ | {"PATH": path}
    done = subprocess.run(
        argv, cwd=project, env=environ, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def repro(project: Path) -> set[str]:
    """Stages that ran, without the data set's name."""
    return set(re.findall(r"Running stage '([\w-]+)", run(project, "repro")))


def test_the_stage_writes_a_file_for_each_stage_and_removes_others(tmp_path: Path) -> None:
    (tmp_path / "gone").write_text("of a stage that is no more")
    main(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == stage_names()
    assert set(STAGES) < set(stage_names())
    line = re.compile(r"[0-9a-f]{16}  [\w./-]+")
    assert all(line.fullmatch(each) for each in (tmp_path / "pretrain").read_text().splitlines())


def test_every_name_that_is_left_out_exists() -> None:
    for name in [*LEFT_OUT, *UNUSED_IMPORTS, *UNUSED_IMPORTS.values()]:
        assert module_file(name)


def test_imports_for_types_alone_do_not_count(tmp_path: Path) -> None:
    package = tmp_path / "flap"
    package.mkdir()
    (package / "__init__.py").touch()
    head = "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from flap import b\n"
    (package / "a.py").write_text(head + "def f():\n    from flap import c\n")
    (package / "b.py").touch()
    (package / "c.py").touch()
    assert import_closure("flap.a", tmp_path) == {"flap", "flap.a", "flap.c"}
