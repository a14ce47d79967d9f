"""Copies on this node's disk of MELS shards that lie elsewhere: fetched, shared, bounded.

A shard elsewhere is known here by its head: a small Parquet file of the same rows without their
log-mels, which says where the shard is (`flap.mel_heads`). The shard of the head
`<cache>/<root>/heads/toy/shard-00017.parquet` is copied to `<cache>/<root>/copies/toy/`. All
processes of a node share the folder. What they agree on is a lock, which dies with its holder:

- on `<copy>.part`: its holder fetches the shard. The file is as long as the shard from the moment
  that room was found, so what is on its way counts;
- on a head, shared: the copy is in use or soon will be, and others that fetch ahead spare it;
- on `<cache>/lock`: its holder finds room.

A copy is removed whole. Who has it mapped goes on reading, and as readers map it for a batch only
(`flap.clips`), its space is free soon after.
"""

import fcntl
import hashlib
import json
import os
import shutil
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache
from pathlib import Path
from typing import IO, Any, TypeVar

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
from fsspec.implementations.local import LocalFileSystem

from flap.errors import UserError, first_line
from flap.shards import DISK_FULL

FOLDER, BOUND = "FLAP_MELS_CACHE", "FLAP_MELS_CACHE_GIB"
HEADS, COPIES = "heads", "copies"
SOURCE_KEY = b"flap.source"
_GIB = 2**30
_ATTEMPTS, _PAUSE_SECONDS = 4, 0.5
_WAIT_SECONDS = 0.05
_BLOCK_BYTES = 8 << 20
_VERSIONS = (
    "ETag",
    "etag",
    "md5Hash",
    "blob_id",
    "mtime",
    "LastModified",
    "last_modified",
    "created",
)
_T = TypeVar("_T")


@dataclass(frozen=True)
class Source:
    """A shard elsewhere, as it was when its head was made."""

    url: str
    size: int
    version: str  # size and what else its store tells it by

    @classmethod
    def of(cls, fs: Any, url: str, info: dict[str, Any]) -> "Source":
        """
        Args:
            info: what the file system says of it; fsspec leaves all but the size to each.
        """
        if isinstance(fs, LocalFileSystem):
            stat = Path(info["name"]).stat()
            return cls(url, stat.st_size, f"{stat.st_size}:{stat.st_mtime_ns}")
        told = next((info[key] for key in _VERSIONS if info.get(key)), "")
        if isinstance(told, datetime):  # as some say it of a file, and a number in a listing
            told = told.timestamp()
        return cls(url, int(info["size"]), f"{info['size']}:{told}".replace('"', ""))


def source_of(schema: pa.Schema) -> Source | None:
    """Where the shard is whose head has this schema; None: it is a shard itself."""
    told = (schema.metadata or {}).get(SOURCE_KEY)
    return Source(**json.loads(told)) if told else None


def from_store(url: str, call: Callable[[], _T]) -> _T:
    """`call()`, tried again when the store fails.

    Raises:
        UserError: nothing is there, or the store failed each time; the message names the URL.
    """
    for attempt in range(_ATTEMPTS):
        try:
            return call()
        except UserError:
            raise
        except FileNotFoundError:
            raise UserError(
                f"{url}: is not there; see FLAP_MELS, and what was copied to it"
            ) from None
        except Exception as error:  # each client has its own classes
            if isinstance(error, OSError) and error.errno in DISK_FULL:
                raise UserError(
                    f"{FOLDER}: no space left on the disk; free some, or lower {BOUND}"
                ) from None
            failure = first_line(error)
            time.sleep(_PAUSE_SECONDS * 2**attempt)
    raise UserError(f"{url}: cannot be read, tried {_ATTEMPTS} times ({failure})")


def bound_bytes(folder: Path) -> int:
    """The most that the copies in this folder may take, by default half of its disk.

    Raises:
        UserError: FLAP_MELS_CACHE_GIB is no number above 0.
    """
    told = os.environ.get(BOUND)
    if not told:
        return shutil.disk_usage(folder).total // 2
    try:
        bound = float(told) * _GIB
    except ValueError:
        bound = 0
    if not 0 < bound < float("inf"):
        raise UserError(f"{BOUND}={told}: a number of GiB above 0 is expected")
    return int(bound)


@contextmanager
def locked(path: Path) -> Iterator[IO[bytes]]:
    """The file of this name, locked by us alone; waits for whoever has it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    while True:
        with path.open("ab") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            if _is(path, file):  # not removed while we waited
                yield file
                return


def _is(path: Path, file: IO[bytes]) -> bool:
    try:
        return os.path.samestat(path.stat(), os.fstat(file.fileno()))
    except FileNotFoundError:
        return False


@contextmanager
def _if_free(path: Path) -> Iterator[bool]:
    """Whether nobody has a lock on the file; if so, it is ours within the block."""
    with path.open("rb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
            return
        yield _is(path, file)


class Copy:
    """The copy of one shard; it is made when it is first wanted."""

    def __init__(self, head: Path, source: Source) -> None:
        self._head, self._source = head, source
        self._cache = head.parents[3]
        digest = hashlib.sha256(f"{source.url}\n{source.version}".encode()).hexdigest()[:16]
        self.path = head.parents[2] / COPIES / head.parent.name / f"{head.stem}.{digest}.parquet"

    def open(self) -> IO[bytes]:
        """The copy's bytes, fetched if they are not there; whoever needs them now comes first.

        Raises:
            UserError: as of `fetch`.
        """
        while True:
            try:
                file = self.path.open("rb")
                os.utime(self.path)  # eviction goes by it
                return file
            except FileNotFoundError:
                self.fetch(takes_held=True)

    def hold(self) -> IO[bytes]:
        """Others that fetch ahead leave the copy alone until what is returned is closed."""
        file = self._head.open("rb")
        fcntl.flock(file, fcntl.LOCK_SH)
        return file

    def fetch(self, *, takes_held: bool = False) -> bool:
        """Make the copy if it is not there; if another process is making it, wait.

        Args:
            takes_held: wait for room, and take it from copies that others hold, too.

        Returns:
            False where there is no room for it now.

        Raises:
            UserError: the store failed each time, or the shard is gone or another than it was.
        """
        part = self.path.with_suffix(".part")
        with locked(part) as claim:
            try:
                if self.path.exists():
                    os.utime(self.path)
                    return True
                while not _find_room(self._cache, self._source.size, claim, takes_held):
                    if not takes_held:
                        return False
                    time.sleep(_WAIT_SECONDS)
                from_store(self._source.url, lambda: self._download(part))
                part.replace(self.path)
                return True
            finally:
                part.unlink(missing_ok=True)

    def _download(self, part: Path) -> None:
        fs, path = fsspec.url_to_fs(self._source.url)
        # Block by block, as some clients hold whole files in memory.
        with fs.open(path, "rb", cache_type="none") as source, part.open("rb+") as target:
            shutil.copyfileobj(source, target, _BLOCK_BYTES)
            copied = target.tell()
            os.fsync(target.fileno())
        fs.invalidate_cache(fs._parent(path))
        if (
            copied != self._source.size
            or Source.of(fs, self._source.url, fs.info(path)) != self._source
        ):
            raise UserError(f"{self._source.url}: has changed since this run began; start it again")


@lru_cache(maxsize=4096)
def copy_of(head: str) -> Copy | None:
    """The copy of the shard that the file is the head of; None: it is a shard itself."""
    source = source_of(pq.read_schema(head))
    return Copy(Path(head), source) if source else None


def _find_room(cache: Path, size: int, claim: IO[bytes], takes_held: bool) -> bool:
    """Grant `size` bytes to a claim, removing the copies that were used least recently."""
    with locked(cache / "lock"):
        remove_left_overs(cache)
        under_way = sum(map(_bytes, cache.glob(f"*/{COPIES}/*/*.part")))
        there = [(path.stat(), path) for path in cache.glob(f"*/{COPIES}/*/*.parquet")]
        there.sort(key=lambda one: one[0].st_mtime_ns)
        excess = size + under_way + sum(stat.st_size for stat, _ in there) - bound_bytes(cache)
        for remove in (_remove_unheld, _remove) if takes_held else (_remove_unheld,):
            for stat, copy in there:
                if excess > 0 and remove(copy):
                    excess -= stat.st_size
        if excess > 0:
            return False
        os.truncate(claim.fileno(), size)
        return True


def _remove_unheld(copy: Path) -> bool:
    head = copy.parents[2] / HEADS / copy.parent.name / f"{copy.name.partition('.')[0]}.parquet"
    try:
        with _if_free(head) as is_free:
            if is_free:
                copy.unlink()
            return is_free
    except FileNotFoundError:  # a head that is no more
        copy.unlink()
        return True


def _remove(copy: Path) -> bool:
    _warn_of_too_little()
    try:
        copy.unlink()
    except FileNotFoundError:
        return False
    return True


def remove_left_overs(cache: Path) -> None:
    """Remove what killed processes had begun to fetch."""
    for part in cache.glob(f"*/{COPIES}/*/*.part"):
        with suppress(FileNotFoundError), _if_free(part) as is_free:
            if is_free:
                part.unlink()


def _bytes(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:  # it has become a copy, which is counted after
        return 0


@lru_cache(maxsize=1)
def _warn_of_too_little() -> None:
    warnings.warn(
        f"{BOUND}: the shards that training reads at a time do not fit, and are fetched again and "
        "again; raise it, or lower pretrain.shuffle_shards or pretrain.streams",
        stacklevel=1,
    )
