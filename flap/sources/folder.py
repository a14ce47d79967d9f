"""Adapter `folder`: a folder of recordings and one table that describes them.

The folder holds `captions.csv`, or a single other CSV or Parquet file. Its columns (others are
ignored, and named once):

| column | |
|---|---|
| file_name | path of the recording, from the table's folder; required |
| caption, caption_1, caption_2, …; in Parquet also a list `captions` | empty ones are skipped |
| labels | separated by ";", or a list; what means an AudioSet class is written as its name |
| split | see `SPLIT_NAMES`; without the column they are drawn |
| licence (or license), source, duration_s | kept as they are |
| freesound_id, youtube_id | the upload that it was cut from, for the audit |

Every line of the table ends as a row of CLIPS or as one of REJECTS.
"""

import re
from collections.abc import Iterable, Iterator

from flap.core.errors import UserError
from flap.sources.config import FolderDataset
from flap.sources.files import CorpusFiles, without_suffix
from flap.sources.record import AdapterOutput, Record, RejectedRecord
from flap.sources.origins import freesound_origin, youtube_origin
from flap.sources.tables import Line, as_seconds, read_table

_CAPTION, _LABELS = re.compile(r"captions?(_\d+)?"), re.compile(r"labels?(_\d+)?")
_KNOWN_COLUMNS = {
    *("file_name", "split", "licence", "license", "source", "duration_s"),
    *("freesound_id", "youtube_id"),
}
_LISTED = re.compile(r"\[\s*['\"].*['\"]\s*\]", re.DOTALL)  # what pandas makes of a list in a CSV


def table_name(files: CorpusFiles) -> str:
    """The table in the corpus's folder.

    Raises:
        UserError: there is none, or several and none is named captions.csv.
    """
    found = [name for name in files.find(".csv", ".parquet") if "/" not in name]
    if "captions.csv" in found:
        return "captions.csv"
    if len(found) != 1:
        what = ", ".join(found) or "no table"
        raise UserError(
            f"{files.root}: expected captions.csv or a single other CSV or Parquet file, "
            f"found {what}"
        )
    return found[0]


def read_folder(
    files: CorpusFiles, config: FolderDataset, output: AdapterOutput
) -> Iterator[Record | RejectedRecord]:
    """Each line of the folder's table.

    Raises:
        UserError: the table is missing or malformed, or lacks a column that it must have.
    """
    name = table_name(files)
    columns, lines = read_table(files, name)
    _check_columns(files.uri(name), columns, config)
    note_ignored(columns, output)
    yield from map(record_from_line, lines)


def note_ignored(columns: Iterable[str], output: AdapterOutput) -> None:
    """Tell the user of columns that mean nothing here."""
    ignored = [column for column in columns if not _is_known(column)]
    if ignored:
        output.notes.append(f"ignored columns: {', '.join(ignored)}")


def record_from_line(line: Line) -> Record:
    """What a line of a table says, by the columns above.

    Raises:
        UserError: a caption is a list that was written as text.
    """
    cells = line.cells.items()
    for column, cell in cells:
        if _CAPTION.fullmatch(column) and _LISTED.fullmatch(cell):
            raise UserError(
                f"line {line.number}: '{column}' holds a list written as text, {cell[:60]}; save "
                "the table as Parquet, or give each caption a column caption_1, caption_2, …"
            )
    return Record(
        where=f"line {line.number}",
        recording=line["file_name"],
        name=without_suffix(line["file_name"]),
        captions=[cell for column, cell in cells if _CAPTION.fullmatch(column)],
        labels=[
            label
            for column, cell in cells
            if _LABELS.fullmatch(column)
            for label in cell.split(";")
        ],
        split=line.cells.get("split"),
        duration_s=as_seconds(line["duration_s"]),
        licence=line["licence"] or line["license"],
        source=line["source"],
        origin=freesound_origin(line["freesound_id"]) or youtube_origin(line["youtube_id"]),
    )


def _is_known(column: str) -> bool:
    patterns = (_CAPTION, _LABELS)
    return column in _KNOWN_COLUMNS or any(pattern.fullmatch(column) for pattern in patterns)


def _check_columns(where: str, columns: list[str], config: FolderDataset) -> None:
    found = f"(columns found: {', '.join(columns)})"
    if "file_name" not in map(str.lower, columns):
        raise UserError(
            f"{where}: column 'file_name' is missing; add it, with each recording's path from "
            f"the table's folder {found}"
        )
    for column in columns:
        if not _is_known(column) and _is_known(column.strip().lower()):
            raise UserError(f"{where}: column '{column}': write it '{column.strip().lower()}'")
    captions = any(_CAPTION.fullmatch(column) for column in columns)
    if not captions and config.captions == "required":
        raise UserError(
            f"{where}: column 'caption' is missing; add it, or caption_1 to caption_5, or set "
            f"the dataset's captions to optional {found}"
        )
