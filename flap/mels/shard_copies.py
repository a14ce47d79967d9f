"""Copies on this node's disk of MELS shards that lie elsewhere.

The shard of the stub `<cache>/<root>/stubs/toy/shard-00017.parquet` (`flap.mels.stubs`) is copied
to `<cache>/<root>/copies/toy/`, once for all processes of the node, and evicted when other shards
need the space (`flap.mels.cache_space`). A process that has an evicted copy mapped can still read
it. Readers map a copy for one batch only (`flap.mels.reader`), so its space is free soon after.
"""

import hashlib
import os
import shutil
import time
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import IO

import fsspec
import pyarrow.parquet as pq

from flap.core.errors import UserError
from flap.mels.cache_space import COPIES, download_lock, reserve, share
from flap.mels.remote_shard import RemoteShard, remote_shard, with_retries

_WAIT_SECONDS = 0.05
_BLOCK_BYTES = 8 << 20


class ShardCopy:
    """The copy of one shard, downloaded at first use.

    Args:
        stub: the shard's stub in `<cache>/<root>/stubs/<dataset>/`.
        remote: the shard.
    """

    def __init__(self, stub: Path, remote: RemoteShard) -> None:
        self._stub, self._remote = stub, remote
        self._cache = stub.parents[3]
        digest = hashlib.sha256(f"{remote.url}\n{remote.version}".encode()).hexdigest()[:16]
        self.path = stub.parents[2] / COPIES / stub.parent.name / f"{stub.stem}.{digest}.parquet"

    def open(self) -> IO[bytes]:
        """Open the copy, downloading it if necessary; this may evict copies that others share.

        Raises:
            UserError: as of `fetch`.
        """
        while True:
            try:
                file = self.path.open("rb")
                os.utime(self.path)  # eviction sorts by this time
                return file
            except FileNotFoundError:
                self.fetch(evict_shared=True)

    def hold(self) -> IO[bytes]:
        """Protect the copy from eviction by prefetching until the returned file is closed."""
        return share(self._stub)

    def fetch(
        self, *, evict_shared: bool = False, on_reserved: Callable[[], None] = lambda: None
    ) -> bool:
        """Download the copy if it is missing; wait if another process is downloading it.

        Args:
            evict_shared: wait until there is space, and take it from copies in use, too.
            on_reserved: called as soon as the copy has its space, before the download.

        Returns:
            False if there is not enough space now.

        Raises:
            UserError: the store failed each time, or the shard is missing or has changed.
        """
        part = self.path.with_suffix(".part")
        with download_lock(part):
            part.unlink(missing_ok=True)  # of a process that was killed
            if self.path.exists():
                os.utime(self.path)
                on_reserved()
                return True
            size = self._remote.size
            while not reserve(self._cache, part, size, evict_shared=evict_shared):
                if not evict_shared:
                    return False
                time.sleep(_WAIT_SECONDS)
            on_reserved()
            try:
                with_retries(self._remote.url, lambda: self._download(part))
                part.replace(self.path)
            finally:
                part.unlink(missing_ok=True)
            return True

    def _download(self, part: Path) -> None:
        fs, path = fsspec.url_to_fs(self._remote.url)
        # Block by block: some clients hold a whole file in memory.
        with fs.open(path, "rb", cache_type="none") as source, part.open("rb+") as target:
            shutil.copyfileobj(source, target, _BLOCK_BYTES)
            copied = target.tell()
            os.fsync(target.fileno())
        fs.invalidate_cache(fs._parent(path))
        now = RemoteShard.from_info(fs, self._remote.url, fs.info(path))
        if copied != self._remote.size or now != self._remote:
            raise UserError(f"{self._remote.url}: changed since this run began; start it again")


@lru_cache(maxsize=4096)
def shard_copy(path: str) -> ShardCopy | None:
    """The copy of the shard that the stub at `path` stands for; None if `path` is a shard."""
    remote = remote_shard(pq.read_schema(path))
    return ShardCopy(Path(path), remote) if remote else None
