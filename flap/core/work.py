"""Unfinished work of a stage: finished shards survive a kill, half an output is never published.

1. `Work.open` gives a stage the folder `data/.work/<stage>/<name>/<fingerprint>/`. The
   fingerprint stands for parameters, code and inputs. After a kill, the next run with the same
   fingerprint finds the finished shards there.
2. `run_shards` calls a function, shard in → shard out, for each missing shard. It takes over
   published shards whose inputs have not changed. A note in `data/.work` says what a shard was
   made from; the shard does not, so equal shards have equal bytes.
3. `Work.publish` renames the folder to `data/<stage>/<name>` in one step.
"""

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import xxhash
from filelock import FileLock, Timeout
from pydantic import BaseModel
from tqdm import tqdm

from flap.core.code import stage_code
from flap.core.errors import UserError, first_line
from flap.core.executor import run_each
from flap.core.shards import atomic_path

_ATTEMPTS = 3
_LOCK_SECONDS = 15.0  # processes of a killed run end within this time


def fingerprint(stage: str, inputs: Sequence[Path], *sections: BaseModel, **more: Any) -> str:
    """Short hash of the stage's code, its parameters and the identity of its input files.

    Args:
        stage: the name in dvc.yaml, for its code (`flap.core.code`).
        more: further values that decide the result.
    """
    digest = hashlib.sha256(stage_code(stage).encode())
    for section in sections:
        digest.update(section.model_dump_json().encode())
    digest.update(json.dumps(more, sort_keys=True).encode())
    for path in sorted(inputs):
        digest.update(f"{path}:{identity(path)}\n".encode())
    return digest.hexdigest()[:16]


def identity(path: Path) -> str:
    """Size and modification time of a file. Hashing a million recordings would take too long."""
    stat = path.stat()
    return f"{stat.st_size}:{stat.st_mtime_ns}"


@dataclass(frozen=True)
class Work:
    """The unpublished output of a stage; `publish` renames `folder` to `out`."""

    out: Path
    folder: Path
    _lock: FileLock | None  # held until `publish` or the end of the process

    @classmethod
    def open(cls, out: Path, fingerprint: str, *, follower: bool = False) -> "Work":
        """The work folder of `out` = <data>/<stage>/<name> for this fingerprint.

        Args:
            follower: another process of the same run holds the lock.

        Raises:
            UserError: another run works on the same output.
        """
        stage_folder = out.parents[1] / ".work" / out.parent.name / out.name
        folder = stage_folder / fingerprint
        folder.mkdir(parents=True, exist_ok=True)
        if follower:
            return cls(out, folder, None)
        lock = _lock(stage_folder.with_suffix(".lock"))
        for half_written in folder.rglob(".*.tmp"):  # of a killed run
            half_written.unlink()
        return cls(out, folder, lock)

    @property
    def notes(self) -> Path:
        """What each shard in `folder` was made from."""
        return self.folder.with_suffix(".made")

    @property
    def published_notes(self) -> Path:
        """What each shard in `out` was made from."""
        return self.folder.parent / "published"

    def publish(self) -> None:
        """Rename the work folder to `out`; work of other fingerprints is removed."""
        if self.out.exists():
            shutil.rmtree(self.out)
        self.out.parent.mkdir(parents=True, exist_ok=True)
        shutil.rmtree(self.published_notes, ignore_errors=True)
        if self.notes.exists():
            self.notes.replace(self.published_notes)
        self.folder.replace(self.out)
        for other in set(self.folder.parent.iterdir()) - {self.published_notes}:
            shutil.rmtree(other) if other.is_dir() else other.unlink()
        if self._lock:
            self._lock.release()


def _lock(path: Path) -> FileLock:
    lock = FileLock(path, thread_local=False)
    try:
        lock.acquire(timeout=_LOCK_SECONDS, poll_interval=0.1)
    except Timeout:
        raise UserError(
            f"{path.parent}: another run of this stage is still at work; wait for it or end it"
        ) from None
    return lock


def run_shards(
    function: Callable[[Path, Path], None],
    shards: Sequence[Path],
    work: Work,
    desc: str,
    *,
    made_from: Callable[[Path], str] = identity,
    max_jobs: int | None = None,
) -> list[Path]:
    """Call `function(shard, target)` for each shard whose target does not exist yet.

    `target` has the shard's name. The function writes it last and atomically; it may write files
    of the same name in folders beside it. A failed shard is tried again after the others.
    `flap.core.executor` says where the calls run.

    Args:
        made_from: what decides a shard's content, beside parameters and code.
        max_jobs: number of shards at a time.

    Returns:
        The shards whose target the function did not write.

    Raises:
        Exception: the error of a shard that failed each time; finished shards are kept.
    """
    _forget_others(work.folder, shards)
    make = _MakeShard(function, work.folder, work.notes, work.out, work.published_notes, made_from)
    left = list(shards)
    with tqdm(desc=desc, total=len(shards), unit="shard") as progress:
        for attempts in range(1, _ATTEMPTS + 1):
            failed: dict[Path, Exception] = {}
            for shard, error in run_each(make, left, max_jobs):
                if error is None:
                    progress.update()
                elif isinstance(error, UserError):
                    raise error
                else:
                    failed[shard] = error
                    progress.write(f"{shard.name}, attempt {attempts}: {first_line(error)}")
            if not failed:
                return [shard for shard in shards if not (work.folder / shard.name).exists()]
            left = list(failed)
    error = next(iter(failed.values()))
    error.add_note(f"{len(failed)} of {len(shards)} shards failed {_ATTEMPTS} times: {left[0]}, …")
    raise error


@dataclass(frozen=True)
class _MakeShard:
    """Makes one shard in the work folder, or takes it over from the published output."""

    function: Callable[[Path, Path], None]
    folder: Path
    notes: Path
    out: Path
    published_notes: Path
    made_from: Callable[[Path], str]

    def __call__(self, shard: Path) -> None:
        target, note = self.folder / shard.name, self.notes / shard.name
        key = _key(self.folder, shard, self.made_from)
        if _is_made(target, note, key):
            return
        for left_over in [*_side_files(self.folder, shard), target]:
            left_over.unlink(missing_ok=True)
        published = self.out / shard.name
        if _is_made(published, self.published_notes / shard.name, key):
            _link([*_side_files(self.out, shard), published], self.out, self.folder)
        else:
            self.function(shard, target)
        if target.exists():
            _take_note(target, note, key)


def _forget_others(folder: Path, shards: Sequence[Path]) -> None:
    """Remove what a killed run made from inputs that no longer exist."""
    names, stems = {shard.name for shard in shards}, {shard.stem for shard in shards}
    for made in [*folder.glob("shard-*.parquet"), *folder.glob("_*/shard-*.parquet")]:
        if made.name not in names:
            made.unlink()
    for beside in folder.glob("_*/shard-*/"):
        if beside.is_dir() and beside.name not in stems:
            shutil.rmtree(beside)


def note_shard(work: Work, shard: Path, *, made_from: Callable[[Path], str] = identity) -> None:
    """Note what the target of `shard` was made from, where `run_shards` did not make it."""
    key = _key(work.folder, shard, made_from)
    _take_note(work.folder / shard.name, work.notes / shard.name, key)


def _key(folder: Path, shard: Path, made_from: Callable[[Path], str]) -> str:
    text = f"{folder.name}\n{shard.name}\n{made_from(shard)}"
    return hashlib.sha256(text.encode()).hexdigest()


def _is_made(target: Path, note: Path, key: str) -> bool:
    """Whether `target` is the file, or has the bytes, that the note of this key describes.

    DVC may replace a file by a link to its cache, which can have another modification time.
    """
    try:
        noted_key, noted_identity, noted_digest = note.read_text().split()
        if noted_key != key:
            return False
        return noted_identity == identity(target) or noted_digest == _digest(target)
    except (FileNotFoundError, ValueError):
        return False


def _take_note(target: Path, note: Path, key: str) -> None:
    with atomic_path(note) as temporary:
        temporary.write_text(f"{key} {identity(target)} {_digest(target)}")


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, xxhash.xxh3_128).hexdigest()


def _side_files(out: Path, shard: Path) -> Iterator[Path]:
    """Files that a function wrote beside a shard: `_rejects/<name>`, `_recordings/<stem>/…`."""
    yield from out.glob(f"_*/{shard.name}")
    yield from (path for path in out.glob(f"_*/{shard.stem}/**/*") if path.is_file())


def _link(files: Iterable[Path], out: Path, folder: Path) -> None:
    for file in files:
        target = folder / file.relative_to(out)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.unlink(missing_ok=True)
        try:
            os.link(file.resolve(), target)
        except OSError:  # another file system, or one without links
            shutil.copy2(file, target)
