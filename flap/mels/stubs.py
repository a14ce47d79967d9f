"""Stubs: small local tables that stand for MELS shards in a store or in another folder.

Training needs to know all clips before it reads a log-mel. A stub has every column of its shard,
but `mel` is null, and its metadata says where the shard lies. It takes about a thousandth of the
shard's bytes. Code that needs no log-mels reads stubs like shards.
"""

import hashlib
import json
import os
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path, PurePosixPath
from typing import IO, Any

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
from filelock import FileLock
from fsspec.implementations.local import LocalFileSystem
from tqdm import tqdm

from flap.core.errors import UserError, first_line
from flap.core.schemas import MELS
from flap.core.shards import atomic_path, shard_paths
from flap.core.work import identity
from flap.mels.cache_space import LIMIT, STUBS, cache_lock, limit_bytes, remove_dead_downloads
from flap.mels.remote_shard import REMOTE_KEY, RemoteShard, remote_shard, with_retries
from flap.mels.shard_copies import shard_copy

ROOT, CACHE = "FLAP_MELS", "FLAP_MELS_CACHE"
_REQUESTS = 16  # at a time; a request spends most of its time waiting for the store


def mels_from_environment(mels: Path, datasets: Sequence[str]) -> Path:
    """The folder of MELS to read, by the variables FLAP_MELS and FLAP_MELS_CACHE.

    FLAP_MELS is a folder or an fsspec URL that replaces `mels`. FLAP_MELS_CACHE is a folder on
    this node: with it, shards are read from copies in it, and the returned folder holds stubs.
    Without either, the result is `mels`.

    Raises:
        UserError: a variable is wrong, the store fails, or a dataset has no shards there.
    """
    root, cache = os.environ.get(ROOT) or str(mels), os.environ.get(CACHE)
    try:
        fs, base = fsspec.url_to_fs(os.path.expanduser(root.rstrip("/")))  # noqa: PTH111 - a URL
    except (ImportError, ValueError) as error:
        raise UserError(f"{ROOT}={root}: {first_line(error)}") from None
    is_local = isinstance(fs, LocalFileSystem)
    if not cache:
        if not is_local:
            raise UserError(f"{CACHE}: not set; with {ROOT}={root}, name a folder on this node")
        return Path(base) if os.environ.get(ROOT) else mels
    root = base if is_local else root.rstrip("/")
    folder = Path(cache).expanduser().absolute()
    own = folder / hashlib.sha256(root.encode()).hexdigest()[:16]
    try:
        own.mkdir(parents=True, exist_ok=True)
        with cache_lock(folder):
            remove_dead_downloads(folder)
    except OSError as error:
        raise UserError(f"{CACHE}={cache}: {error.strerror}") from None
    # The first process of the node writes the stubs, the others wait and find them.
    with FileLock(own / "lock"):
        for dataset in datasets:
            _update(fs, base, root, dataset, own / STUBS / dataset)
    _check_limit(folder, own)
    return own / STUBS


def mel_versions(mels: Path, datasets: Iterable[str]) -> dict[str, str]:
    """`<dataset>/<shard>` → version; equal for shards in place, in another folder, and copied."""
    paths = [path for dataset in datasets for path in shard_paths(mels / dataset)]
    remotes = [remote_shard(pq.read_schema(path)) for path in paths]
    return {
        f"{path.parent.name}/{path.name}": remote.version if remote else identity(path)
        for path, remote in zip(paths, remotes, strict=True)
    }


def _update(fs: Any, base: str, root: str, dataset: str, folder: Path) -> None:
    """Write stubs of the dataset's present shards into `folder`, and remove all others."""
    url = f"{root}/{dataset}"
    fs.invalidate_cache()
    listing = with_retries(url, lambda: fs.ls(f"{base}/{dataset}", detail=True))
    infos = {PurePosixPath(info["name"].rstrip("/")).name: info for info in listing}
    remotes = {
        name: RemoteShard.from_info(fs, f"{url}/{name}", info)
        for name, info in sorted(infos.items())
        if PurePosixPath(name).match("shard-*.parquet")
    }
    if not remotes:
        raise UserError(f"{url}: no shard-*.parquet here; copy data/audio/{dataset} there")
    for path in folder.glob("shard-*.parquet"):
        if remote_shard(pq.read_schema(path)) != remotes.get(path.name):
            path.unlink()
            shard_copy.cache_clear()
    new = [(remote, folder / name) for name, remote in remotes.items()]
    new = [(remote, stub) for remote, stub in new if not stub.exists()]
    with ThreadPoolExecutor(_REQUESTS) as pool:
        written = pool.map(lambda pair: _write_stub(*pair), new)
        list(tqdm(written, f"stubs of {dataset}", len(new), unit="shard", disable=not new))


def _write_stub(remote: RemoteShard, stub: Path) -> None:
    def read() -> pa.Table:
        with open_remote(remote) as (_, shard):
            MELS.check(shard.schema_arrow, remote.url)
            return shard.read([name for name in shard.schema_arrow.names if name != "mel"])

    table = with_retries(remote.url, read)
    position = MELS.schema({}).get_field_index("mel")
    table = table.add_column(position, "mel", pa.nulls(len(table), pa.binary()))
    metadata = table.schema.metadata | {REMOTE_KEY: json.dumps(asdict(remote))}
    with atomic_path(stub) as temporary:
        pq.write_table(table.replace_schema_metadata(metadata), temporary)


@contextmanager
def open_remote(remote: RemoteShard) -> Iterator[tuple[IO[bytes], pq.ParquetFile]]:
    """The shard in its store, as bytes and as Parquet; only the bytes that are read are fetched.

    Raises:
        UserError: it is not a Parquet file.
    """
    fs, path = fsspec.url_to_fs(remote.url)
    with fs.open(path, "rb", cache_type="none") as file:
        try:
            # Pre-buffering fetches adjacent columns in one request.
            yield file, pq.ParquetFile(file, pre_buffer=True)
        except pa.ArrowInvalid as error:
            raise UserError(f"{remote.url}: not a readable Parquet file: {error}") from None


def _check_limit(cache: Path, own: Path) -> None:
    stubs = own.glob(f"{STUBS}/*/shard-*.parquet")
    largest = max(remote.size for stub in stubs if (remote := remote_shard(pq.read_schema(stub))))
    if largest > limit_bytes(cache):
        raise UserError(
            f"{LIMIT}: a shard has {largest / 2**30:.3g} GiB, more than the whole cache may take; "
            "raise it"
        )
