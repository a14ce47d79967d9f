"""Room for copies: what is removed for a new one, and the locks by which processes agree.

All processes of a node share `<cache>`. What they agree on is a lock, which dies with its holder:

- on `<copy>.part`: its holder fetches the shard. The file is as long as the shard from the moment
  that room was found, so what is on its way counts;
- on a head, shared: the copy is in use or soon will be, and others that fetch ahead spare it;
- on `<cache>/lock`: its holder finds room.
"""

import fcntl
import os
import shutil
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import lru_cache
from pathlib import Path
from typing import IO

from flap.core.errors import UserError

BOUND = "FLAP_MELS_CACHE_GIB"
HEADS, COPIES = "heads", "copies"
_GIB = 2**30


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


def find_room(cache: Path, size: int, claim: IO[bytes], takes_held: bool) -> bool:
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
    try:
        copy.unlink()
    except FileNotFoundError:
        return False
    _warn_of_too_little()
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
