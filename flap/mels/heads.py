"""MELS that lie elsewhere, known here by their heads: tables without the log-mels themselves.

Training needs to know which clips there are before it reads any. A head has all columns of its
shard but `mel`, which is null, and in its metadata where the shard is; so it is a thousandth
of it, and whatever reads MELS for anything but log-mels reads heads as well.
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
from fsspec.implementations.local import LocalFileSystem
from tqdm import tqdm

from flap.core.errors import UserError, first_line
from flap.core.schemas import MELS
from flap.core.shards import atomic_path, shard_paths
from flap.core.work import identity
from flap.mels.copies import copy_of
from flap.mels.room import BOUND, HEADS, bound_bytes, locked, remove_left_overs
from flap.mels.source import SOURCE_KEY, Source, from_store, source_of

ROOT, FOLDER = "FLAP_MELS", "FLAP_MELS_CACHE"
_REQUESTS = 16  # at a time; each waits for the store most of the time


def mels_from_environment(mels: Path, datasets: Sequence[str]) -> Path:
    """The folder of MELS to read: `mels`, or what FLAP_MELS and FLAP_MELS_CACHE make of it.

    FLAP_MELS is the folder or fsspec URL that holds the MELS in the place of `mels`. With
    FLAP_MELS_CACHE, a folder of this node, shards are read from copies in it; the folder that is
    returned has their heads.

    Raises:
        UserError: a variable is wrong, or the store fails, or it has no shards.
    """
    root, cache = os.environ.get(ROOT) or str(mels), os.environ.get(FOLDER)
    try:
        fs, base = fsspec.url_to_fs(os.path.expanduser(root.rstrip("/")))  # noqa: PTH111 - a URL
    except (ImportError, ValueError) as error:
        raise UserError(f"{ROOT}={root}: {first_line(error)}") from None
    is_local = isinstance(fs, LocalFileSystem)
    if not cache:
        if not is_local:
            raise UserError(f"{FOLDER}: with {ROOT}={root}, a folder of this node is expected")
        return Path(base) if os.environ.get(ROOT) else mels
    root = base if is_local else root.rstrip("/")
    folder = Path(cache).expanduser().absolute()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with locked(folder / "lock"):
            remove_left_overs(folder)
    except OSError as error:
        raise UserError(f"{FOLDER}={cache}: {error.strerror}") from None
    own = folder / hashlib.sha256(root.encode()).hexdigest()[:16]
    with locked(own / "lock"):  # the ranks of a node come together; one reads, the others find
        for dataset in datasets:
            _update(fs, base, root, dataset, own / HEADS / dataset)
    _check_bound(folder, own)
    return own / HEADS


def versions(mels: Path, datasets: Iterable[str]) -> dict[str, str]:
    """What tells a run's MELS from others: the same for shards here, elsewhere and copied."""
    paths = [path for dataset in datasets for path in shard_paths(mels / dataset)]
    sources = [source_of(pq.read_schema(path)) for path in paths]
    return {
        f"{path.parent.name}/{path.name}": source.version if source else identity(path)
        for path, source in zip(paths, sources, strict=True)
    }


def _update(fs: Any, base: str, root: str, dataset: str, folder: Path) -> None:
    """Make the heads in `folder` those of the shards that the dataset has now."""
    url = f"{root}/{dataset}"
    fs.invalidate_cache()
    listing = from_store(url, lambda: fs.ls(f"{base}/{dataset}", detail=True))
    infos = {PurePosixPath(info["name"].rstrip("/")).name: info for info in listing}
    sources = {
        name: Source.of(fs, f"{url}/{name}", info)
        for name, info in sorted(infos.items())
        if PurePosixPath(name).match("shard-*.parquet")
    }
    if not sources:
        raise UserError(f"{url}: no shard-*.parquet here; it has to hold what data/audio holds")
    for path in folder.glob("shard-*.parquet"):
        if source_of(pq.read_schema(path)) != sources.get(path.name):
            path.unlink()
            copy_of.cache_clear()
    new = [(source, folder / name) for name, source in sources.items()]
    new = [(source, head) for source, head in new if not head.exists()]
    with ThreadPoolExecutor(_REQUESTS) as pool:
        made = pool.map(lambda one: _make_head(*one), new)
        list(tqdm(made, f"heads of {dataset}", len(new), unit="shard", disable=not new))


def _make_head(source: Source, head: Path) -> None:
    def read() -> pa.Table:
        with open_source(source) as (_, shard):
            MELS.check(shard.schema_arrow, source.url)
            return shard.read([name for name in shard.schema_arrow.names if name != "mel"])

    table = from_store(source.url, read)
    position = MELS.schema({}).get_field_index("mel")
    table = table.add_column(position, "mel", pa.nulls(len(table), pa.binary()))
    told = {SOURCE_KEY: json.dumps(asdict(source))}
    with atomic_path(head) as temporary:
        pq.write_table(table.replace_schema_metadata(table.schema.metadata | told), temporary)


@contextmanager
def open_source(source: Source) -> Iterator[tuple[IO[bytes], pq.ParquetFile]]:
    """The shard where it lies, as bytes and as Parquet; what is read is fetched, and no more.

    Raises:
        UserError: it is no Parquet file.
    """
    fs, path = fsspec.url_to_fs(source.url)
    with fs.open(path, "rb", cache_type="none") as file:
        try:
            yield file, pq.ParquetFile(file, pre_buffer=True)  # columns that touch: one request
        except pa.ArrowInvalid as error:
            raise UserError(f"{source.url}: not a readable Parquet file: {error}") from None


def _check_bound(folder: Path, own: Path) -> None:
    heads = own.glob(f"{HEADS}/*/shard-*.parquet")
    largest = max(source.size for head in heads if (source := source_of(pq.read_schema(head))))
    if largest > bound_bytes(folder):
        raise UserError(f"{BOUND}: a shard has {largest / 2**30:.3g} GiB, more than all may take")
