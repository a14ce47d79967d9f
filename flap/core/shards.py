"""Shards: Parquet files, the unit of work, retry and resume.

A stage reads `data/<stage>/<name>/shard-00017.parquet` and writes a file of the same name
(`flap.core.work`). A file is written under a temporary name and then renamed, so a file that
exists is complete.

Side tables and files are in folders with a leading underscore (`_rejects/`). Parquet readers skip
these folders: `pandas.read_parquet("data/audio/demo")` reads the main table alone.
"""

import errno
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from flap.core.errors import UserError
from flap.core.schemas import REJECT_REASONS, REJECTS, TableSpec

REJECTS_FOLDER = "_rejects"
DISK_FULL = (errno.ENOSPC, errno.EDQUOT)
Row = dict[str, Any]
_ONE_PAGE = 1 << 30  # bytes: a row group's values of a column are one page
_GROUP_BYTES = 1 << 28  # a row group of long values ends early


def shard_name(index: int) -> str:
    return f"shard-{index:05d}.parquet"


def shard_paths(folder: Path) -> list[Path]:
    """The shards of a published stage in order; `UserError` if there is none."""
    paths = sorted(folder.glob("shard-*.parquet"))
    if not paths:
        raise UserError(f"{folder}: no shard-*.parquet here; run `dvc repro` up to this stage")
    return paths


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """A temporary path beside `path`. It is renamed to `path` when the block succeeds.

    If the block fails, neither file is left.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        yield temporary
        with temporary.open("rb+") as file:
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError as error:
        if error.errno in DISK_FULL:
            raise UserError(
                f"{path}: no space left on the disk; free some and run again, "
                "finished shards are kept"
            ) from error
        raise
    finally:
        temporary.unlink(missing_ok=True)


class RowWriter:
    """Writes rows into a Parquet file; memory holds one row group at most."""

    def __init__(self, writer: pq.ParquetWriter, spec: TableSpec) -> None:
        self._writer, self._spec = writer, spec
        self._rows: list[Row] = []
        self._plain_bytes = 0

    def append(self, row: Row) -> None:
        self._rows.append(row)
        self._plain_bytes += sum(len(row[name]) for name in self._spec.plain)
        if len(self._rows) == self._spec.row_group_rows or self._plain_bytes > _GROUP_BYTES:
            self.flush()

    def flush(self) -> None:
        """Write the rows in memory as a row group; raise if a value does not fit its column."""
        if self._rows:
            table = pa.Table.from_pylist(self._rows, schema=self._writer.schema)
            table.validate(full=True)
            self._writer.write_table(table)
            self._rows, self._plain_bytes = [], 0


@contextmanager
def open_rows(path: Path, spec: TableSpec, provenance: Mapping[str, Any]) -> Iterator[RowWriter]:
    """Write one Parquet file of `spec` row by row, atomically; equal rows give equal bytes."""
    schema = spec.schema(provenance)
    others = [name for name in schema.names if name not in spec.plain]
    with (
        atomic_path(path) as temporary,
        pq.ParquetWriter(
            temporary,
            schema,
            compression={name: "SNAPPY" if name in others else "NONE" for name in schema.names},
            use_dictionary=others,
            write_statistics=others,
            data_page_size=_ONE_PAGE if spec.plain else None,
        ) as writer,
    ):
        rows = RowWriter(writer, spec)
        yield rows
        rows.flush()


def write_rows(
    path: Path, rows: Iterable[Row], spec: TableSpec, provenance: Mapping[str, Any]
) -> None:
    """Write `rows` as one Parquet file of `spec`, atomically; equal rows give equal bytes."""
    with open_rows(path, spec, provenance) as writer:
        for row in rows:
            writer.append(row)


def write_rejects(path: Path, rejects: Sequence[Row], provenance: Mapping[str, Any]) -> None:
    """Write rejected rows, or no file if there are none; reasons are of REJECT_REASONS."""
    unknown = {row["reason"] for row in rejects} - REJECT_REASONS
    assert not unknown, f"reasons outside the closed set: {unknown}"
    if rejects:
        write_rows(path, rejects, REJECTS, provenance)
    else:
        path.unlink(missing_ok=True)  # of a run that was killed


def read_table(path: Path, spec: TableSpec, columns: Sequence[str] | None = None) -> pa.Table:
    """One Parquet file, checked to be a `spec`.

    Raises:
        UserError: it is missing, broken, another table, another version, or lacks a column.
    """
    try:
        schema = pq.read_schema(path)
        spec.check(schema, str(path))
        return pq.read_table(path, columns=list(columns) if columns else None)
    except FileNotFoundError:
        raise UserError(f"{path}: no such file; run `dvc repro`") from None
    except pa.ArrowInvalid as error:
        raise UserError(f"{path}: not a readable Parquet file: {error}") from None


def read_folder(
    folder: Path, spec: TableSpec, columns: Sequence[str] | None = None
) -> pd.DataFrame:
    """All shards of a folder as one frame."""
    tables = [read_table(path, spec, columns) for path in shard_paths(folder)]
    return pa.concat_tables(t.replace_schema_metadata(None) for t in tables).to_pandas()


def count_rows(folder: Path) -> int:
    """Rows over all shards of a folder, from the files' footers."""
    return sum(pq.read_metadata(path).num_rows for path in folder.glob("shard-*.parquet"))
