"""The manual: short at the front, true of the code; its site, which loads nothing else."""

import ast
import importlib
import importlib.util
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from flap.captions.checks import REASONS
from flap.core import schemas
from flap.core.config import read_params

ROOT = Path(__file__).parents[1]
PAGES = [
    *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "data/README.md")),
    *sorted((ROOT / "docs").rglob("*.md")),
]
TEXTS = {page.relative_to(ROOT).as_posix(): page.read_text() for page in PAGES}
LINK = re.compile(r"\]\((?!\w+:)([^)\s]*)\)")
TREES = "flap|pipeline|docs|tests|benchmarks|examples|experiments|requirements|data|metrics"
FILE = re.compile(rf"(?<![\w/.-])(?:(?:{TREES})/[\w./*-]+\.(?:py|yaml|yml|md|txt|sh|csv|svg))")
MADE = ("metrics/", "data/")  # by stages; a fresh clone has some


def slug(heading: str) -> str:
    """A heading's anchor, as GitHub and the site make it."""
    plain = re.sub(r"[`*]", "", heading.strip().lower())
    return re.sub(r"[^\w\- ]", "", plain).replace(" ", "-")


def anchors(page: Path) -> set[str]:
    text = re.sub(r"```.*?```", "", page.read_text(), flags=re.DOTALL)
    return {slug(found) for found in re.findall(r"^#+ (.+)$", text, re.MULTILINE)}


def test_the_readme_is_a_front_door() -> None:
    assert len(TEXTS["README.md"].splitlines()) <= 200


@pytest.mark.parametrize("page", PAGES, ids=TEXTS)
def test_links_lead_somewhere(page: Path) -> None:
    for link in LINK.findall(page.read_text()):
        name, _, anchor = link.partition("#")
        target = (page.parent / name) if name else page
        assert target.exists(), f"{page.name}: {link}"
        if anchor:
            assert anchor in anchors(target), f"{page.name}: {link}"


@pytest.mark.parametrize("page", TEXTS)
def test_files_that_are_named_exist(page: str) -> None:
    for name in FILE.findall(TEXTS[page]):
        if not name.startswith(MADE):
            beside = (ROOT / page).parent / name
            assert beside.exists() or list(ROOT.glob(name)), f"{page}: {name}"


@pytest.mark.parametrize("page", TEXTS)
def test_nothing_of_this_machine_is_named(page: str) -> None:
    assert not re.search(r"(?<![\w.])/(?:work|home|root|tmp|opt)/", TEXTS[page])


def modules() -> list[str]:
    """Modules that the manual runs, in commands of `python -m`."""
    named = {m for text in TEXTS.values() for m in re.findall(r"python -m ((?:\w+\.)+\w+)", text)}
    return sorted(named - {"benchmarks.NAME"})


@pytest.mark.parametrize("module", modules())
def test_commands_have_a_help(module: str) -> None:
    found = importlib.util.find_spec(module)
    assert found is not None and found.origin is not None
    source = Path(found.origin)
    if found.submodule_search_locations:  # a package that is run
        source = source.with_name("__main__.py")
    assert source.exists(), module
    if module.startswith("benchmarks."):
        return  # tests/test_benchmarks.py runs them
    done = subprocess.run(
        [sys.executable, "-m", module, "--help"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert "usage" in done.stdout.lower() or module.rsplit(".", maxsplit=1)[-1] in done.stdout


def test_make_targets_exist() -> None:
    targets = set(re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    for page, text in TEXTS.items():
        code = "\n".join(map("".join, re.findall(r"```sh\n(.*?)```|`([^`\n]+)`", text, re.DOTALL)))
        for target in re.findall(r"^(?:\S+=\S+ )*make ([a-z][a-z-]*)", code, re.MULTILINE):
            assert target in targets, f"{page}: make {target}"


def test_extras_exist() -> None:
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"][
        "optional-dependencies"
    ]
    for page, text in TEXTS.items():
        for named in re.findall(r"'\.\[([\w,]+)\]'", text):
            assert set(named.split(",")) <= set(extras), f"{page}: {named}"


def test_every_section_and_variable_is_in_the_manual() -> None:
    for section in read_params(ROOT / "params.yaml"):
        assert f"| `{section}` |" in TEXTS["docs/parameters.md"], section
    code = "".join(
        p.read_text() for top in ("flap", "pipeline") for p in (ROOT / top).rglob("*.py")
    )
    internal = {"FLAP_RANKS_FOLDER"}
    for variable in set(re.findall(r"\bFLAP_[A-Z_]*[A-Z]\b", code)) - internal:
        assert f"`{variable}`" in TEXTS["docs/clusters.md"], variable


def test_closed_sets_are_in_the_manual() -> None:
    for reason in schemas.REJECT_REASONS:
        assert f"| `{reason}` |" in TEXTS["docs/tables.md"], reason
    for finding in schemas.AUDIT_FINDINGS:
        assert f"| `{finding}` |" in TEXTS["docs/corpora.md"], finding
    for reason in REASONS:
        assert f"| `{reason}` |" in TEXTS["docs/captions.md"], reason
    tables = {name for name, spec in vars(schemas).items() if isinstance(spec, schemas.TableSpec)}
    assert tables == set(re.findall(r"<!-- columns: (\w+) -->", TEXTS["docs/tables.md"]))


def messages() -> list[str]:
    """Every text in the code that holds a value or a space, values as …."""
    found = []
    for top in ("flap", "pipeline"):
        for path in (ROOT / top).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text())):
                if isinstance(node, ast.JoinedStr):
                    parts = (
                        part.value if isinstance(part, ast.Constant) else "…"
                        for part in node.values
                    )
                    found.append("".join(map(str, parts)))
                elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                    found.append(node.value)
    return found


def test_messages_of_the_troubleshooting_page_are_those_of_the_code() -> None:
    known = messages()
    rows = re.findall(r"^\| `([^`]+)` \|", TEXTS["docs/troubleshooting.md"], re.MULTILINE)
    assert len(rows) > 50
    for message in rows:
        pieces = [re.escape(piece) for piece in message.split("…")]
        pattern = re.compile(".*".join(pieces), re.DOTALL)
        assert any(pattern.fullmatch(text) for text in known), message


def test_the_site_is_whole_and_loads_nothing_from_elsewhere() -> None:
    pytest.importorskip("zensical", reason="the extra `docs` is not installed")
    path = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    done = subprocess.run(
        [sys.executable, ROOT / "docs/build.py"],
        env=os.environ | {"PYTHONPATH": path},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    site = ROOT / "build/docs"
    pages = list(site.rglob("*.html"))
    assert len(pages) > 20 and (site / "search.json").stat().st_size > 10_000
    for page in pages:
        loaded = re.findall(
            r"<(?:script|img|iframe|source)\b[^>]*\bsrc=[\"']?((?:https?:)?//[^\"'> ]+)"
            r"|<link\b[^>]*\bhref=[\"']?((?:https?:)?//[^\"'> ]+)",
            page.read_text(),
        )
        assert not loaded, f"{page.name}: {loaded}"
    for style in site.rglob("*.css"):
        assert not re.search(r"url\([\"']?(?:https?:)?//|@import", style.read_text()), style.name
    tables = (site / "tables.html").read_text()
    assert "fp16 log-mel" in tables and "&lt;!-- columns" not in tables
