"""Copies on this node's disk of MELS shards that lie elsewhere.

The shard of the head `<cache>/<root>/heads/toy/shard-00017.parquet` (`flap.mels.heads`) is copied
to `<cache>/<root>/copies/toy/`, once for all processes of the node, and removed when others need
the room (`flap.mels.room`). Who has a removed copy mapped goes on reading, and as readers map it
for a batch only (`flap.mels.reader`), its space is free soon after.
"""

import fcntl
import hashlib
import os
import shutil
import time
from functools import lru_cache
from pathlib import Path
from typing import IO

import fsspec
import pyarrow.parquet as pq

from flap.core.errors import UserError
from flap.mels.room import COPIES, find_room, locked
from flap.mels.source import Source, from_store, source_of

_WAIT_SECONDS = 0.05
_BLOCK_BYTES = 8 << 20


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
            is_copy = False
            try:
                if self.path.exists():
                    os.utime(self.path)
                    return True
                while not find_room(self._cache, self._source.size, claim, takes_held):
                    if not takes_held:
                        return False
                    time.sleep(_WAIT_SECONDS)
                from_store(self._source.url, lambda: self._download(part))
                part.replace(self.path)
                is_copy = True
                return True
            finally:
                if not is_copy:  # else the name may be another process's already
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
