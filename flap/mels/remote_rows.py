"""Single log-mels of shards in a store: the few that validation needs from each shard."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq

from flap.core.schemas import MELS, provenance
from flap.core.shards import Row, read_table, write_rows
from flap.mels.reader import LENGTH_BYTES, check_value, value_pages
from flap.mels.remote_shard import RemoteShard, remote_shard, with_retries
from flap.mels.stubs import open_remote

_SHARDS = 16  # read at a time


def fetch_rows(clips: pd.DataFrame, target: Path) -> pd.DataFrame:
    """Fetch the clips' log-mels into the MELS file `target`, unless they lie on this node.

    Each validation reads clips of every shard. If it fetched whole shards, they would evict the
    shards that training reads. So the rows of the validation clips are fetched once.

    Args:
        clips: as `flap.mels.clips.usable_clips` gives them.
        target: if it exists, an earlier call for the same clips wrote it.

    Returns:
        The same clips with `path` and `row` in `target`; `clips` itself if nothing is remote.

    Raises:
        UserError: the store failed each time, or a shard is missing or has changed.
    """
    schema = pq.read_schema(clips["path"].iloc[0])
    if remote_shard(schema) is None:
        return clips
    if not target.exists():
        write_rows(target, _rows(clips), MELS, provenance(schema))
    return clips.assign(path=str(target), row=np.arange(len(clips)))


def _rows(clips: pd.DataFrame) -> Iterator[Row]:
    wanted = [(path, own["row"].tolist()) for path, own in clips.groupby("path", sort=False)]
    with ThreadPoolExecutor(_SHARDS) as pool:
        for start in range(0, len(wanted), _SHARDS):
            shards = wanted[start : start + _SHARDS]
            for rows in pool.map(lambda shard: _shard_rows(*shard), shards):
                yield from rows


def _shard_rows(path: str, numbers: list[int]) -> list[Row]:
    stub = read_table(Path(path), MELS)
    remote = remote_shard(stub.schema)
    assert remote
    n_frames = stub["n_frames"].to_pylist()
    mels = with_retries(remote.url, lambda: _read_mels(remote, n_frames, numbers))
    rows = stub.take(numbers).to_pylist()
    return [row | {"mel": mel} for row, mel in zip(rows, mels, strict=True)]


def _read_mels(remote: RemoteShard, n_frames: list[int], numbers: list[int]) -> list[bytes]:
    """The bytes of the log-mels in these rows, with one request for each row."""
    mels = []
    with open_remote(remote) as (file, shard):
        values = [value for page in value_pages(shard, n_frames) for value in page]
        for value in map(values.__getitem__, numbers):
            file.seek(value.start - LENGTH_BYTES)
            data = file.read(value.stop - value.start + LENGTH_BYTES)
            check_value(data[:LENGTH_BYTES], value, remote.url)
            mels.append(data[LENGTH_BYTES:])
    return mels
