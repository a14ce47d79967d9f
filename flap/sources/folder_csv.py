"""A CSV as lines that know their number; every cell is text without outer blanks."""

import csv
from dataclasses import dataclass
from pathlib import Path

from flap.errors import UserError


@dataclass(frozen=True)
class Line:
    """One record; `number` is its last line in the file, `line[column]` "" if absent."""

    number: int
    cells: dict[str, str]

    def __getitem__(self, column: str) -> str:
        return self.cells.get(column, "")


def read_lines(path: Path) -> tuple[list[str], list[Line]]:
    """Columns and records of a UTF-8 CSV with a header.

    Raises:
        UserError: it is not UTF-8, has no header, names a column twice, or a line has more
            or fewer fields than the header.
    """
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.reader(file, strict=True)
            columns = [column.strip() for column in next(reader, [])]
            _check_header(path, columns)
            lines = [_line(path, columns, reader.line_num, row) for row in reader if row]
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: not UTF-8 ({error.reason}); save it as UTF-8") from None
    except csv.Error as error:
        raise UserError(f"{path}: line {reader.line_num}: {error}") from None
    return columns, lines


def _check_header(path: Path, columns: list[str]) -> None:
    if not columns:
        raise UserError(f"{path}: is empty; the first line must name the columns")
    twice = sorted({column for column in columns if columns.count(column) > 1})
    if twice:
        raise UserError(f"{path}: column '{twice[0]}' is there more than once")


def _line(path: Path, columns: list[str], number: int, row: list[str]) -> Line:
    if len(row) != len(columns):
        raise UserError(
            f"{path}: line {number} has {len(row)} fields, the header {len(columns)}; "
            "put captions that hold commas in double quotes"
        )
    return Line(number, {name: cell.strip() for name, cell in zip(columns, row, strict=True)})
