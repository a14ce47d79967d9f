"""Shards: the unit of work, of retry and of resume.

A stage reads `data/<stage>/<name>/shard-00017.parquet` and writes a file of the same name:

1. `Work.open` gives it a folder `data/.work/<stage>/<name>/<fingerprint>/`, where the
   fingerprint stands for parameters, code and inputs. After a kill the same run finds its
   finished shards there.
2. `run_shards` runs one function, shard in → shard out, for the shards that are not there yet.
   Files are written under a temporary name and renamed, so a file that exists is whole.
3. `Work.publish` renames the folder to `data/<stage>/<name>` in one step.

Side tables and files stand in folders with a leading underscore (`_rejects/`), which Parquet
readers skip: `pandas.read_parquet("data/audio/demo")` is the main table alone.
"""

import errno
import fcntl
import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import joblib
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import BaseModel
from tqdm import tqdm

from flap.errors import UserError
from flap.schemas import REJECT_REASONS, REJECTS, TableSpec

REJECTS_FOLDER = "_rejects"
DISK_FULL = (errno.ENOSPC, errno.EDQUOT)
Row = dict[str, Any]


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
    """A temporary name beside `path` that becomes `path` if the block succeeds.

    Nothing stays behind under either name if the block fails.
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


def write_rows(
    path: Path,
    rows: Sequence[Row],
    spec: TableSpec,
    provenance: Mapping[str, Any],
    *,
    row_group_rows: int = 4096,
) -> None:
    """Write `rows` as one Parquet file of `spec`, atomically; equal rows give equal bytes."""
    table = pa.Table.from_pylist(list(rows), schema=spec.schema(provenance))
    table.validate(full=True)
    with atomic_path(path) as temporary:
        pq.write_table(table, temporary, row_group_size=row_group_rows, compression="snappy")


def write_rejects(path: Path, rejects: Sequence[Row], provenance: Mapping[str, Any]) -> None:
    """Write rejected rows; every reason must be one of the closed set."""
    unknown = {row["reason"] for row in rejects} - REJECT_REASONS
    assert not unknown, f"reasons outside the closed set: {unknown}"
    write_rows(path, rejects, REJECTS, provenance)


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


def fingerprint(inputs: Sequence[Path], *sections: BaseModel, **more: Any) -> str:
    """Short hash of parameters, of this package's files, and of the input files' identity.

    Files count by path, size and modification time: hashing a million recordings at each
    start would cost more than a needless recomputation.
    """
    digest = hashlib.sha256()
    for section in sections:
        digest.update(section.model_dump_json().encode())
    digest.update(json.dumps(more, sort_keys=True).encode())
    for source in sorted(Path(__file__).parent.rglob("*.*")):
        if source.parent.name != "__pycache__":
            digest.update(source.read_bytes())
    for path in sorted(inputs):
        stat = path.stat()
        digest.update(f"{path}:{stat.st_size}:{stat.st_mtime_ns}\n".encode())
    return digest.hexdigest()[:16]


@dataclass(frozen=True)
class Work:
    """A stage's unpublished output: `folder` becomes `out` when it is complete."""

    out: Path
    folder: Path
    _lock: IO[bytes] | None  # held open, and so locked, as long as this object lives

    @classmethod
    def open(cls, out: Path, fingerprint: str, *, follower: bool = False) -> "Work":
        """The work folder of `out` = <data>/<stage>/<name> for this fingerprint.

        Args:
            follower: another rank of the same run owns the folder; take no lock.

        Raises:
            UserError: another live process works on the same output.
        """
        stage_folder = out.parents[1] / ".work" / out.parent.name / out.name
        folder = stage_folder / fingerprint
        folder.mkdir(parents=True, exist_ok=True)
        if follower:
            return cls(out, folder, None)
        lock = _lock(stage_folder / ".lock")
        for half_written in folder.rglob(".*.tmp"):  # by a run that was killed
            half_written.unlink()
        return cls(out, folder, lock)

    def publish(self) -> None:
        """Rename the work folder to `out`; work of other fingerprints is removed."""
        if self.out.exists():
            shutil.rmtree(self.out)
        self.out.parent.mkdir(parents=True, exist_ok=True)
        self.folder.replace(self.out)
        shutil.rmtree(self.folder.parent, ignore_errors=True)


def _lock(path: Path) -> IO[bytes]:
    file = path.open("wb")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise UserError(
            f"{path.parent}: another run of this stage is still at work; wait for it or end it"
        ) from None
    return file


def run_shards(
    function: Callable[[Path, Path], None],
    shards: Sequence[Path],
    work: Work,
    desc: str,
    max_jobs: int | None = None,
) -> None:
    """Call `function(shard, target)` for each shard whose target is not in `work` yet.

    `target` has the shard's name; the function writes it last and atomically. How many
    processes there are is the environment's affair (FLAP_JOBS, default: one a core, at most
    `max_jobs`) and changes no result.
    """
    targets = [(shard, work.folder / shard.name) for shard in shards]
    todo = [(shard, target) for shard, target in targets if not target.exists()]
    if not todo:
        return
    wanted = os.environ.get("FLAP_JOBS") or str(joblib.cpu_count())
    if not wanted.isdigit() or wanted == "0":
        raise UserError(f"FLAP_JOBS={wanted}: expected a number of processes")
    jobs = min(int(wanted), max_jobs or int(wanted), len(todo))
    runs = joblib.Parallel(n_jobs=jobs, return_as="generator_unordered")(
        joblib.delayed(function)(shard, target) for shard, target in todo
    )
    done = len(targets) - len(todo)
    for _ in tqdm(runs, desc=desc, initial=done, total=len(targets), unit="shard"):
        pass
