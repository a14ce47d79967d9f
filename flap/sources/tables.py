"""A corpus's CSV or Parquet table → numbered lines of text cells; cells of JSON → text, numbers."""

import csv
import io
import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from flap.core.errors import UserError, first_line
from flap.sources.files import CorpusFiles


@dataclass(frozen=True)
class Line:
    """One row of a table; `line[column]` is "" for an absent column."""

    number: int
    """Line number in a CSV (the last line of a row that has several), row number in Parquet."""
    cells: dict[str, str]

    def __getitem__(self, column: str) -> str:
        return self.cells.get(column, "")


def read_table(
    files: CorpusFiles, name: str, *, encoding: str = "utf-8-sig"
) -> tuple[list[str], list[Line]]:
    """Columns and lines of a Parquet file, or of a CSV with a header.

    A list in column `x` of a Parquet file becomes the columns `x_1`, `x_2`, …

    Raises:
        UserError: the file cannot be read; or a CSV has another encoding, no header, a column
            twice, or a line with more or fewer fields than the header.
    """
    where = files.uri(name)
    with files.open(name) as file:
        if name.lower().endswith(".parquet"):
            return _read_parquet(where, file)
        return _read_csv(where, file, encoding)


def require_columns(where: str, columns: Sequence[str], *required: str) -> None:
    """
    Raises:
        UserError: a required column is missing.
    """
    for column in required:
        if column not in columns:
            raise UserError(
                f"{where}: column '{column}' is missing (columns found: {', '.join(columns)})"
            )


def read_json(files: CorpusFiles, name: str) -> Any:
    """
    Raises:
        UserError: the file cannot be read, or is not JSON.
    """
    try:
        with files.open(name) as file:
            return json.load(file)
    except (ValueError, RecursionError) as error:
        raise UserError(f"{files.uri(name)}: not JSON: {first_line(error)}") from None


def as_texts(value: Any) -> list[str]:
    """The texts and numbers of a cell of JSON or Parquet: one value, a list of values, or null.

    Null, NaN, bytes, and nested values are left out.
    """
    values = value if isinstance(value, list) else [value]
    return [
        str(element)
        for element in values
        if isinstance(element, str | int | float)
        and not (isinstance(element, float) and math.isnan(element))
    ]


def as_seconds(value: Any) -> float | None:
    """A positive, finite number; None for any other value."""
    try:
        number = float(value)
    except (TypeError, ValueError):
        return None
    return number if 0 < number < math.inf else None


def _read_csv(where: str, file: Any, encoding: str) -> tuple[list[str], list[Line]]:
    text = io.TextIOWrapper(file, encoding=encoding, newline="")
    try:
        reader = csv.reader(text, strict=True)
        columns = [column.strip() for column in next(reader, [])]
        _check_header(where, columns)
        lines = [_line(where, columns, reader.line_num, row) for row in reader if row]
    except UnicodeDecodeError as error:
        raise UserError(f"{where}: not UTF-8 ({error.reason}); save it as UTF-8") from None
    except csv.Error as error:
        raise UserError(
            f"{where}: line {reader.line_num}: {error}; put double quotes around cells that "
            "contain commas, quotes or line breaks, and write a quote within a cell twice"
        ) from None
    return columns, lines


def _check_header(where: str, columns: list[str]) -> None:
    if not columns:
        raise UserError(f"{where}: is empty; the first line must name the columns")
    twice = sorted({column for column in columns if columns.count(column) > 1})
    if twice:
        raise UserError(
            f"{where}: column '{twice[0]}' is there more than once; rename or remove it"
        )


def _line(where: str, columns: list[str], number: int, row: list[str]) -> Line:
    if len(row) != len(columns):
        raise UserError(
            f"{where}: line {number} has {len(row)} fields, the header {len(columns)}; "
            "put double quotes around captions that contain commas"
        )
    return Line(number, {name: cell.strip() for name, cell in zip(columns, row, strict=True)})


def _read_parquet(where: str, file: Any) -> tuple[list[str], list[Line]]:
    try:
        table = pq.read_table(file)
        rows = table.to_pylist()
    except (pa.ArrowInvalid, OSError, UnicodeDecodeError) as error:
        raise UserError(f"{where}: not a readable Parquet file: {first_line(error)}") from None
    lines = [
        Line(number, {name: text for cell in row.items() for name, text in _cells(*cell)})
        for number, row in enumerate(rows, 1)
    ]
    listed = (name for line in lines for name in line.cells)
    return list(dict.fromkeys([*table.column_names, *listed])), lines


def _cells(name: str, value: Any) -> Iterator[tuple[str, str]]:
    found = [text.strip() for text in as_texts(value)]
    if isinstance(value, list):
        yield from ((f"{name}_{i}", text) for i, text in enumerate(found, 1))
    else:
        yield name, found[0] if found else ""
