"""Space for copies of shards on this node's disk: the limit, eviction, and locks.

All processes of a node share the folder `<cache>`. They coordinate by locks, which the system
releases when their holder dies:

- `<cache>/lock`, exclusive: its holder reserves space and evicts copies;
- `<cache>/<root>/lock`, exclusive: its holder updates the stubs;
- `<cache>/<root>/locks/<dataset>/<copy>.lock`, exclusive: its holder downloads the copy's `.part`
  file. The reservation gives `.part` the shard's full size, so that downloads under way count;
- on a stub, shared: the shard's copy is in use or will be soon, so prefetching spares the copy.

The exclusive locks are `filelock.FileLock`s. The shared lock needs `fcntl`: FileLock knows no
shared mode.
"""

import fcntl
import os
import shutil
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import IO

from filelock import FileLock, Timeout

from flap.core.errors import UserError

LIMIT = "FLAP_MELS_CACHE_GIB"
STUBS, COPIES, LOCKS = "stubs", "copies", "locks"
_GIB = 2**30


def limit_bytes(cache: Path) -> int:
    """The most bytes that all copies in `cache` may take; by default half of its disk.

    Raises:
        UserError: FLAP_MELS_CACHE_GIB is not a number above 0.
    """
    text = os.environ.get(LIMIT)
    if not text:
        return shutil.disk_usage(cache).total // 2
    try:
        limit = float(text) * _GIB
    except ValueError:
        limit = 0
    if not 0 < limit < float("inf"):
        raise UserError(f"{LIMIT}={text}: expected a number of GiB above 0")
    return int(limit)


def cache_lock(cache: Path) -> FileLock:
    """The lock under which space is reserved and copies are evicted."""
    return FileLock(cache / "lock")


def download_lock(part: Path) -> FileLock:
    """The lock of the process that downloads `<cache>/<root>/copies/<dataset>/<copy>.part`."""
    path = part.parents[2] / LOCKS / part.parent.name / f"{part.stem}.lock"
    path.parent.mkdir(parents=True, exist_ok=True)
    return FileLock(path)


def share(stub: Path) -> IO[bytes]:
    """Lock a stub, shared, until the returned file is closed."""
    file = stub.open("rb")
    fcntl.flock(file, fcntl.LOCK_SH)
    return file


@contextmanager
def _locked_if_unshared(stub: Path) -> Iterator[bool]:
    """Lock a stub within the block; False if another process shares it."""
    with stub.open("rb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
        else:
            yield True


def reserve(cache: Path, part: Path, size: int, *, evict_shared: bool) -> bool:
    """Make `part` a file of `size` bytes, after evicting the least recently used copies.

    The caller holds `download_lock(part)`.

    Args:
        evict_shared: if other copies do not suffice, evict those that processes share, too.

    Returns:
        False if there is not enough space now.
    """
    with cache_lock(cache):
        remove_dead_downloads(cache)
        used, copies = _used_space(cache)
        excess = size + used - limit_bytes(cache)
        for evict in (_evict_unshared, _evict) if evict_shared else (_evict_unshared,):
            for stat, copy in copies:
                if excess > 0 and evict(copy):
                    excess -= stat.st_size
        if excess > 0:
            return False
        part.parent.mkdir(parents=True, exist_ok=True)
        with part.open("wb") as file:
            file.truncate(size)
        return True


def _used_space(cache: Path) -> tuple[int, list[tuple[os.stat_result, Path]]]:
    """Bytes of all copies and downloads, and the copies, least recently used first."""
    downloads = cache.glob(f"*/{COPIES}/*/*.part")
    parts = {part.with_suffix(".parquet"): _size(part) for part in downloads}
    copies = [(path.stat(), path) for path in cache.glob(f"*/{COPIES}/*/*.parquet")]
    copies.sort(key=lambda copy: copy[0].st_mtime_ns)
    # A download may end between the two listings; it counts once, as a copy.
    under_way = sum(parts[path] for path in parts.keys() - {path for _, path in copies})
    return under_way + sum(stat.st_size for stat, _ in copies), copies


def _evict_unshared(copy: Path) -> bool:
    stub = copy.parents[2] / STUBS / copy.parent.name / f"{copy.name.partition('.')[0]}.parquet"
    try:
        with _locked_if_unshared(stub) as is_unshared:
            if is_unshared:
                copy.unlink()
            return is_unshared
    except FileNotFoundError:  # the dataset has no such shard any more
        copy.unlink(missing_ok=True)
        return True


def _evict(copy: Path) -> bool:
    try:
        copy.unlink()
    except FileNotFoundError:  # evicted already, as it was not shared
        return False
    _warn_of_too_little_space()
    return True


def remove_dead_downloads(cache: Path) -> None:
    """Remove the `.part` files of processes that were killed."""
    for part in cache.glob(f"*/{COPIES}/*/*.part"):
        try:
            with download_lock(part).acquire(blocking=False):
                part.unlink(missing_ok=True)
        except Timeout:  # its process is alive
            pass


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:  # the download has just ended
        return 0


@lru_cache(maxsize=1)
def _warn_of_too_little_space() -> None:
    warnings.warn(
        f"{LIMIT}: the shards that training reads at a time do not fit, so they are fetched "
        "repeatedly; raise it, or lower pretrain.shuffle_shards or pretrain.streams",
        stacklevel=1,
    )
