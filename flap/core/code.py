"""The code that decides a stage's result, computed from imports.

1. The walk starts at the stage's module, `pipeline.<stage>`, and follows every import of `flap`
   and `pipeline`, also imports inside functions.
2. A module counts by its syntax tree. Comments, docstrings and formatting do not count.
3. A string in a module that names a file or folder beside that module is a data file of the
   module, such as "words.yaml". Data files count by their bytes.

DVC reads the result from `data/code/<stage>`, which the stage `code` writes. Unfinished work is
kept under a hash of the same text (`flap.core.work`).
"""

import ast
import hashlib
import re
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]

# Modules, with all below them, that decide where and when a stage runs, and no result.
LEFT_OUT = {
    "flap.core.code": "hashes code",
    "flap.core.errors": "the words of errors",
    "flap.core.executor": "processes, Ray or Dask",
    "flap.core.processes": "start and end of child processes",
    "flap.core.work": "resume, retries, publication",
    "flap.pretrain.trackers": "TensorBoard, MLflow, W&B",
    "flap.pretrain.tracking": "TensorBoard, MLflow, W&B",
    "pipeline.launch": "torchrun, Slurm, Ray Train",
    "pipeline.stage": "command line, messages, exit codes",
}
# Imports that no stage executes: importing module → imported package.
UNUSED_IMPORTS = {
    "flap.processor.processor": "flap.audio",  # `pretrain` saves the processor and never calls it
}
_PACKAGES = ("flap", "pipeline")
_FILE_NAME = re.compile(r"[\w-][\w.-]*")


def stage_code(stage: str, root: Path = ROOT) -> str:
    """One line a module or data file that decides the result of `stage`: hash and name.

    Args:
        stage: a module of `pipeline` or `pipeline.experiments`.
        root: the folder that holds the packages.
    """
    module = f"pipeline.{stage}"
    if _file_of(module, root) is None:
        module = f"pipeline.experiments.{stage}"
    modules = import_closure(module, root)
    lines = {name: _hash_module(module_file(name, root)) for name in modules}
    for name in modules:
        for data in _data_files(module_file(name, root)):
            lines[data.relative_to(root).as_posix()] = _hash_bytes(data.read_bytes())
    return "".join(f"{digest}  {name}\n" for name, digest in sorted(lines.items()))


def import_closure(module: str, root: Path = ROOT) -> set[str]:
    """Names of the modules that `module` can import, with itself, without those left out."""
    found, queue = set[str](), [module]
    while queue:
        name = queue.pop()
        file = _file_of(name, root)
        if name in found or file is None or _is_left_out(name):
            continue
        found.add(name)
        unused = UNUSED_IMPORTS.get(name, "")
        queue += [one for one in imports(file) if not unused or not _is_below(one, unused)]
    return found


def _is_left_out(name: str) -> bool:
    return any(_is_below(name, left_out) for left_out in LEFT_OUT)


def _is_below(name: str, package: str) -> bool:
    return f"{name}.".startswith(f"{package}.")


def _file_of(name: str, root: Path) -> Path | None:
    base = root.joinpath(*name.split("."))
    for file in (base.with_suffix(".py"), base / "__init__.py"):
        if file.exists():
            return file
    return None


def module_file(name: str, root: Path = ROOT) -> Path:
    """The file of a module of ours."""
    file = _file_of(name, root)
    assert file is not None, name
    return file


@cache
def _tree(file: Path) -> ast.Module:
    return ast.parse(file.read_bytes())


@cache
def imports(file: Path) -> frozenset[str]:
    """Dotted names of our modules that `file` imports, and the packages above them.

    Imports under `if TYPE_CHECKING` do not count.
    """
    names = set[str]()
    for node in _executed(_tree(file)):
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            names.add(node.module)
            names.update(f"{node.module}.{alias.name}" for alias in node.names)
    ours = {name for name in names if name.split(".")[0] in _PACKAGES}
    return frozenset(package for name in ours for package in _with_packages(name))


def _executed(node: ast.AST) -> Iterator[ast.AST]:
    yield node
    for child in ast.iter_child_nodes(node):
        is_for_types = isinstance(child, ast.If) and ast.unparse(child.test) == "TYPE_CHECKING"
        if not is_for_types:
            yield from _executed(child)


def _with_packages(name: str) -> Iterable[str]:
    parts = name.split(".")
    return (".".join(parts[: end + 1]) for end in range(len(parts)))


@cache
def _data_files(file: Path) -> tuple[Path, ...]:
    """Files beside a module that a string in it names, and all files of folders likewise."""
    found = set[Path]()
    for node in ast.walk(_tree(file)):
        if isinstance(node, ast.Constant) and _is_file_name(node.value):
            path = file.parent / str(node.value)
            if path.is_file() and path.suffix != ".py":
                found.add(path)
            elif path.is_dir() and not any(path.glob("*.py")):
                found.update(each for each in path.rglob("*") if each.is_file())
    return tuple(sorted(found))


def _is_file_name(value: Any) -> bool:
    return isinstance(value, str) and value != "__pycache__" and bool(_FILE_NAME.fullmatch(value))


@cache
def _hash_module(file: Path) -> str:
    return _hash_bytes(repr(_canonical(_tree(file))).encode())


def _hash_bytes(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:16]


def _canonical(node: Any) -> Any:
    """A syntax tree as nested tuples, without bare strings, positions and empty fields.

    Python versions differ in the fields that they add, and those are empty in our code.
    """
    if isinstance(node, ast.AST):
        fields = ((name, value) for name, value in ast.iter_fields(node) if value not in (None, []))
        return (type(node).__name__, *((name, _canonical(value)) for name, value in fields))
    if isinstance(node, list):
        return tuple(_canonical(item) for item in node if not _is_bare_string(item))
    return node


def _is_bare_string(node: Any) -> bool:
    """Whether a statement is a docstring, of a module, class, function or attribute."""
    return (
        isinstance(node, ast.Expr)
        and isinstance(node.value, ast.Constant)
        and isinstance(node.value.value, str)
    )
