"""Adapter `folder`: a folder of recordings and one table that describes them.

The folder holds `captions.csv`, or a single other CSV or Parquet file. The table's columns are
listed here; the stage prints the names of other columns once and ignores them.

| column | |
|---|---|
| file_name | path of the recording, relative to the table's folder; required |
| caption, caption_1, caption_2, …; in Parquet also a list `captions` | empty ones are skipped |
| labels | separated by ";", or a list; names and aliases of AudioSet classes are unified |
| split | see `SPLIT_NAMES`; without this column splits are drawn |
| licence (or license), source, duration_s | stay unchanged |
| freesound_id, youtube_id | the upload that the recording was cut from, for the audit |

Every line of the table becomes a row of CLIPS or a row of REJECTS.
"""

import re
from collections.abc import Iterator

from flap.core.errors import UserError
from flap.sources.config import FolderDataset
from flap.sources.files import CorpusFiles, without_suffix
from flap.sources.origins import freesound_origin, youtube_origin
from flap.sources.record import AdapterOutput, Record, RejectedRecord
from flap.sources.tables import Line, as_seconds, read_table

_CAPTION, _LABELS = re.compile(r"captions?(_\d+)?"), re.compile(r"labels?(_\d+)?")
_KNOWN_COLUMNS = {
    *("file_name", "split", "licence", "license", "source", "duration_s"),
    *("freesound_id", "youtube_id"),
}
_LIST_AS_TEXT = re.compile(r"\[\s*['\"].*['\"]\s*\]", re.DOTALL)  # pandas writes lists to CSV so


def table_name(files: CorpusFiles) -> str:
    """Name of the table in the corpus's folder.

    Raises:
        UserError: there is no table, or there are several and none is captions.csv.
    """
    tables = [name for name in files.find(".csv", ".parquet") if "/" not in name]
    if "captions.csv" in tables:
        return "captions.csv"
    if len(tables) != 1:
        raise UserError(
            f"{files.root}: expected captions.csv or a single other CSV or Parquet file, "
            f"found {', '.join(tables) or 'no table'}"
        )
    return tables[0]


def read_folder(
    files: CorpusFiles, config: FolderDataset, output: AdapterOutput
) -> Iterator[Record | RejectedRecord]:
    """Each line of the folder's table.

    Raises:
        UserError: the table is missing or malformed, or lacks a required column.
    """
    name = table_name(files)
    columns, lines = read_table(files, name)
    _check_columns(files.uri(name), columns, config)
    ignored = [column for column in columns if not _is_known(column)]
    if ignored:
        output.notes.append(f"ignored columns: {', '.join(ignored)}")
    yield from map(record_from_line, lines)


def record_from_line(line: Line) -> Record:
    """The record that a line of a table describes by the columns above.

    Raises:
        UserError: a cell of captions holds a list that was written as text.
    """
    cells = line.cells.items()
    for column, cell in cells:
        if _CAPTION.fullmatch(column) and _LIST_AS_TEXT.fullmatch(cell):
            raise UserError(
                f"line {line.number}: '{column}' holds a list written as text, {cell[:60]}; save "
                "the table as Parquet, or write each caption into its own column caption_1, "
                "caption_2, …"
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
            f"{where}: column 'file_name' is missing; add it, with each recording's path relative "
            f"to the table's folder {found}"
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
