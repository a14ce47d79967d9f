"""params.yaml → frozen, typed sections.

Each section of `params.yaml` has one class, in `flap/<package>/config.py`. The classes have no
defaults: the file owns all values. Unknown, missing and mistyped keys are errors that name the key.
"""

import json
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, RootModel, ValidationError
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from flap.core.errors import UserError


class Section(BaseModel):
    """Base of every section class: immutable, and unknown keys are errors."""

    model_config = ConfigDict(frozen=True, extra="forbid")


SectionT = TypeVar("SectionT", bound=BaseModel)


def read_params(path: Path) -> dict[str, Any]:
    """The whole file as plain data, by YAML 1.2 as DVC reads it (`5e-5` is a float)."""
    try:
        raw = YAML(typ="safe", pure=True).load(path.read_text())
    except FileNotFoundError:
        raise UserError(f"{path}: no such file; run from the project's root") from None
    except YAMLError as error:
        raise UserError(f"{path}: not valid YAML: {error}") from None
    if not isinstance(raw, dict):
        raise UserError(f"{path}: expected sections (name: {{key: value}}) at the top level")
    return raw


def load_section(path: Path, name: str, cls: type[SectionT]) -> SectionT:
    """Section `name` of `path` as a `cls`.

    Raises:
        UserError: the section is missing, or a key is unknown, missing or of a wrong type.
    """
    raw = read_params(path)
    if name not in raw:
        raise UserError(f"{path}: section '{name}' is missing")
    try:
        # In JSON, strict mode accepts a list for a tuple and converts nothing else. YAML's dates
        # become text.
        return cls.model_validate_json(json.dumps(raw[name], default=str), strict=True)
    except ValidationError as error:
        problems = [_describe(name, cls, problem) for problem in error.errors()]
        raise UserError("\n".join(f"{path}: {problem}" for problem in problems)) from None


def _describe(section: str, cls: type[BaseModel], problem: Any) -> str:
    key = ".".join([section, *(str(part) for part in problem["loc"])])
    if problem["type"] == "extra_forbidden":
        known = "" if issubclass(cls, RootModel) else f"; known keys: {', '.join(cls.model_fields)}"
        return f"unknown key '{key}'{known}"
    if problem["type"] == "missing":
        return f"key '{key}' is missing"
    return f"key '{key}': {problem['msg']} (got {problem['input']!r})"
