"""What the site takes from other files, so that nothing is written twice.

| in a page | becomes |
|---|---|
| `<!-- columns: CLIPS -->` | the columns of that table, from `flap.core.schemas` |
| `<!-- file: params.yaml -->` | the file, as a block of code |
| a link to a file outside `docs/` | the file's path as code; the site has no page for it |

`contributing.md`, `changelog.md` and `measured.md` are made of files outside `docs/`.
"""

import re
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
OUTSIDE = {
    "contributing.md": "CONTRIBUTING.md",
    "changelog.md": "CHANGELOG.md",
    "measured.md": "benchmarks/results/demo_masking.md",
}
LANGUAGES = {".py": "python", ".yaml": "yaml", ".yml": "yaml"}
_MARK = re.compile(r"<!-- (columns|file): (\S+) -->")
_LINK = re.compile(r"(?<!!)\[([^\]]+)\]\((?!\w+:|#)([^)#\s]+)(#[^)]*)?\)")


def on_files(files: Any, config: Any) -> Any:
    """Add the pages whose text lies outside `docs/`."""
    for page, source in OUTSIDE.items():
        text = relinked((ROOT / source).read_text(), ROOT / source)
        files.append(File.generated(config, page, content=text))
    return files


def on_page_markdown(markdown: str, *, page: Any, **_: Any) -> str:
    """Fill the marks of a page, and unlink what the site has no page for."""
    if page.file.src_uri in OUTSIDE:
        return markdown
    return _MARK.sub(_filled, relinked(markdown, DOCS / page.file.src_uri))


def relinked(markdown: str, source: Path) -> str:
    """`markdown` of the file `source`, with its links as the site needs them."""
    return _LINK.sub(partial(_link, source=source), markdown)


def _link(found: re.Match[str], source: Path) -> str:
    text, target, anchor = found[1], (source.parent / found[2]).resolve(), found[3] or ""
    if not target.exists():
        raise PluginError(f"{source.relative_to(ROOT)}: no such file: {found[2]}")
    pages = {ROOT / outside: page for page, outside in OUTSIDE.items()}
    if target in pages:
        up = "../" * (len(source.relative_to(DOCS).parts) - 1) if source.is_relative_to(DOCS) else ""
        return f"[{text}]({up}{pages[target]}{anchor})"
    if target.is_relative_to(DOCS):
        return found[0] if source.is_relative_to(DOCS) else f"[{text}]({target.relative_to(DOCS)})"
    path = f"`{target.relative_to(ROOT)}`"
    return path if text.strip("`") in path else f"{text} ({path})"


def _filled(mark: re.Match[str]) -> str:
    fill: dict[str, Callable[[str], str]] = {"columns": columns, "file": code}
    return fill[mark[1]](mark[2])


def columns(table: str) -> str:
    """The columns of a table as Markdown: name, type, meaning."""
    from flap.core import schemas

    spec = getattr(schemas, table)
    lines = [
        f"| `{column.name}` | {column.type}{', may be null' if column.nullable else ''} "
        f"| {column.metadata[b'doc'].decode()} |"
        for column in spec.columns
    ]
    return "\n".join([f"Version {spec.version}.", "", "| column | type | meaning |", "|---|---|---|", *lines])


def code(name: str) -> str:
    """A file of the project as a block of code."""
    path = ROOT / name
    return f"```{LANGUAGES.get(path.suffix, '')} title=\"{name}\"\n{path.read_text().rstrip()}\n```"
