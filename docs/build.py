"""docs/*.md → build/pages → the site build/docs, with warnings as errors.

What stands elsewhere is put in, so that nothing is written twice:

| in a page | becomes |
|---|---|
| `<!-- columns: CLIPS -->` | the columns of that table, from `flap.core.schemas` |
| `<!-- file: params.yaml -->` | the file, as a block of code |
| a link to a file outside `docs/` | the file's path as code: the site has no page for it |
"""

import re
import shutil
import subprocess
import sys
from functools import partial
from pathlib import Path

from flap.core import schemas

ROOT = Path(__file__).resolve().parents[1]
DOCS, PAGES = ROOT / "docs", ROOT / "build/pages"
OUTSIDE = {  # pages whose text lies outside docs/
    ROOT / "CONTRIBUTING.md": "contributing.md",
    ROOT / "CHANGELOG.md": "changelog.md",
    ROOT / "benchmarks/results/demo_masking.md": "measured.md",
}
LANGUAGES = {".py": "python", ".yaml": "yaml"}
LINK = re.compile(r"\[([^\]]+)\]\((?!\w+:|#)([^)#\s]+)(#[^)]*)?\)")
_MARK = re.compile(r"<!-- (columns|file): (\S+) -->")


def assemble(target: Path) -> None:
    """Write every page and picture into the folder `target`."""
    shutil.rmtree(target, ignore_errors=True)
    shutil.copytree(DOCS, target, ignore=shutil.ignore_patterns("*.py", "__pycache__"))
    pages = {path: path.relative_to(DOCS).as_posix() for path in DOCS.rglob("*.md")}
    for source, page in (pages | OUTSIDE).items():
        text = _MARK.sub(_filled, relinked(source.read_text(), source, page))
        (target / page).write_text(text)


def relinked(markdown: str, source: Path, page: str) -> str:
    """The text of `source` with its links as they have to be on the page."""
    return LINK.sub(partial(_link, folder=source.parent, page=page), markdown)


def _link(found: re.Match[str], folder: Path, page: str) -> str:
    text, target = found[1], (folder / found[2]).resolve()
    name = OUTSIDE.get(target)
    if target.is_relative_to(DOCS):
        name = target.relative_to(DOCS).as_posix()
    if name:
        return f"[{text}]({'../' * page.count('/')}{name}{found[3] or ''})"
    path = f"`{target.relative_to(ROOT)}`"
    return path if text.strip("`") in path else f"{text} ({path})"


def _filled(mark: re.Match[str]) -> str:
    return columns(mark[2]) if mark[1] == "columns" else code_block(mark[2])


def columns(table: str) -> str:
    """The columns of a table as Markdown: name, type, meaning."""
    spec: schemas.TableSpec = getattr(schemas, table)
    lines = [f"Version {spec.version}.", "", "| column | type | meaning |", "|---|---|---|"]
    for column in spec.columns:
        kind = re.sub(r"list<item: (\w+).*>", r"list of \1", str(column.type))
        null = " or null" if column.nullable else ""
        lines.append(f"| `{column.name}` | {kind}{null} | {column.metadata[b'doc'].decode()} |")
    return "\n".join(lines)


def code_block(name: str) -> str:
    """A file of the project as a block of code."""
    path = ROOT / name
    return f'```{LANGUAGES[path.suffix]} title="{name}"\n{path.read_text().rstrip()}\n```'


def main() -> None:
    assemble(PAGES)
    zensical = [sys.executable, "-m", "zensical", "build", "--clean", "--strict"]
    if code := subprocess.run(zensical, cwd=ROOT, check=False).returncode:
        sys.exit(code)
    print("build/docs/index.html; its search wants a server: python -m http.server -d build/docs")


if __name__ == "__main__":
    main()
