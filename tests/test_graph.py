"""The rules that hold the graph together: stages depend on their code, params fit their classes,
and packages import only what lies below them.
"""

import importlib
import pkgutil
import re
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel

import flap
from flap.core.code import import_closure, imports, module_file
from flap.core.config import load_section, read_params
from flap.experiments.variant import SECTIONS
from pipeline.code import stage_names

ROOT = Path(__file__).parents[1]
GRAPH = read_params(ROOT / "dvc.yaml")
STAGES: dict[str, Any] = {name: stage.get("do", stage) for name, stage in GRAPH["stages"].items()}
EXPERIMENTS: dict[str, Any] = {
    name: stage.get("do", stage)
    for name, stage in read_params(ROOT / "experiments/dvc.yaml")["stages"].items()
}
ALL = STAGES | {f"experiments/{name}": stage for name, stage in EXPERIMENTS.items()}
PARAMS = ROOT / "params.yaml"
PAPER = ROOT / "params.paper.yaml"

MAY_IMPORT = {  # package → packages beside `core`
    "core": set(),
    "mels": set(),
    "sources": set(),
    "audio": set(),
    "audit": set(),
    "tagger": {"mels", "model", "training"},
    "tagging": {"mels", "model"},
    "llm": set(),
    "captions": set(),
    "model": set(),
    "training": {"mels", "model"},
    "pretrain": {"mels", "model", "retrieval", "training"},
    "processor": {"audio", "model"},
    "retrieval": {"audio", "mels", "model"},
    "report": set(),
    "flops": {"model"},
    "experiments": {"flops", "model", "pretrain", "retrieval"},
}


def stage_module(stage: str) -> str:
    """The module of a stage's command, without the launcher."""
    return str(re.findall(r"pipeline\.[\w.]+", ALL[stage]["cmd"])[-1])


@pytest.mark.parametrize("stage", [stage for stage in ALL if stage != "code"])
def test_a_stage_depends_on_the_code_that_is_computed_for_it(stage: str) -> None:
    name = stage_module(stage).split(".")[-1]
    assert name in stage_names()
    code = [dep for dep in ALL[stage]["deps"] if dep.startswith(("flap", "pipeline", "data/code"))]
    assert code == [f"data/code/{name}"]


def test_a_row_depends_on_what_pretrain_depends_on() -> None:
    assert set(EXPERIMENTS["train"]["deps"]) == set(STAGES["pretrain"]["deps"])


@pytest.mark.parametrize("stage", ALL)
def test_deps_exist(stage: str) -> None:
    outs = ("data/", "metrics", "experiments/history")
    for dep in ALL[stage].get("deps", []):
        assert "${" in dep or dep.startswith(outs) or (ROOT / dep).exists(), dep


@pytest.mark.parametrize("stage", ALL)
def test_command_names_no_path_outside_deps_and_outs(stage: str) -> None:
    body = ALL[stage]
    declared = list(body.get("deps", []))
    for key in ("outs", "metrics", "plots", "params"):
        declared += [next(iter(o)) if isinstance(o, dict) else o for o in body.get(key, [])]
    for path in re.findall(r"(?<!-)\b(?:data|metrics|experiments|docs)(?:/\S+)?", body["cmd"]):
        inside = any(d == path or d.startswith(f"{path}/") for d in declared)
        assert inside, f"{path} in the command of {stage} is neither dep nor out"


@pytest.mark.parametrize("stage", ALL)
def test_params_cover_the_sections_that_the_stage_loads(stage: str) -> None:
    loaded, body = set(), ALL[stage]
    for name in import_closure(stage_module(stage)):
        source = module_file(name).read_text()
        loaded |= set(re.findall(r"load_section\(\s*\w+,\s*\"(\w+)\"", source))
    tracked = {
        name.split(".")[0]
        for param in body.get("params", [])
        for name in ([param] if isinstance(param, str) else next(iter(param.values())))
    }
    paths = [*body.get("deps", []), *(out for out in body.get("outs", []) if isinstance(out, str))]
    if "experiments/rows.yaml" in paths:
        tracked |= {"experiments"}
    if "data/variant" in paths:  # the parameters of runs, as files
        tracked |= set(SECTIONS)
        loaded |= set(SECTIONS)
    assert loaded == tracked


@pytest.mark.parametrize("stage", STAGES)
def test_stage_is_described_and_named_alike_everywhere(stage: str) -> None:
    assert STAGES[stage]["desc"]
    assert (ROOT / "pipeline" / f"{stage}.py").exists()
    if stage != "code":
        assert (ROOT / "flap" / stage / "__init__.py").exists()
    assert (ROOT / "tests" / f"test_{stage}.py").exists()


@pytest.mark.parametrize("package", MAY_IMPORT)
def test_packages_import_only_what_lies_below_them(package: str) -> None:
    allowed = {"core", package} | MAY_IMPORT[package]
    for file in (ROOT / "flap" / package).rglob("*.py"):
        for name in imports(file):
            parts = name.split(".")
            assert parts[0] != "pipeline", f"{file} imports {name}"
            assert len(parts) == 1 or parts[1] in allowed, f"{file} imports {name}"


def test_every_package_has_a_rule() -> None:
    packages = {file.parent.name for file in (ROOT / "flap").glob("*/__init__.py")}
    assert packages == set(MAY_IMPORT)


@cache
def section_classes() -> dict[str, type[BaseModel]]:
    """Every `<Section>Config` of a config module, by the section's name."""
    classes: dict[str, type[BaseModel]] = {}
    for info in pkgutil.walk_packages(flap.__path__, "flap."):
        if info.name.endswith(".config") and info.name != "flap.core.config":
            module = importlib.import_module(info.name)
            for name, cls in vars(module).items():
                if name.endswith("Config") and getattr(cls, "__module__", "") == info.name:
                    classes[name.removesuffix("Config").lower()] = cls
    return classes


def nested(cls: type[BaseModel]) -> set[type[BaseModel]]:
    found = {cls}
    for field in cls.model_fields.values():
        for inner in re.findall(r"[\w.]+", str(field.annotation)):
            for other in section_classes().values():
                if inner == f"{other.__module__}.{other.__qualname__}" and other not in found:
                    found |= nested(other)
    return found


@pytest.mark.parametrize("file", [PARAMS, PAPER], ids=lambda file: file.name)
def test_params_load_and_every_section_has_a_class(file: Path) -> None:
    for section in read_params(file):
        load_section(file, section, section_classes()[section])


def test_every_class_has_a_section() -> None:
    sections = [*read_params(PARAMS), *read_params(ROOT / "experiments/rows.yaml")]
    used = {inner for s in sections for inner in nested(section_classes()[s])}
    assert set(section_classes().values()) <= used


def test_sections_have_no_defaults() -> None:
    for cls in section_classes().values():
        for name, field in cls.model_fields.items():
            assert field.is_required(), f"{cls.__name__}.{name} has a default"


def test_paper_has_the_keys_of_the_default() -> None:
    def keys(value: Any, path: str = "") -> set[str]:
        free = {"datasets", "benchmarks"}  # maps from names that the user chooses
        chosen = path.endswith(("mask", "weights", "text"))  # one of several kinds
        if not isinstance(value, dict) or path in free or chosen:
            return {path}
        return {key for name in value for key in keys(value[name], f"{path}.{name}".strip("."))}

    assert keys(read_params(PARAMS)) == keys(read_params(PAPER))
