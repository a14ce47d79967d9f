"""Single log-mels of shards elsewhere: the few that validation needs, strewn over all shards."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq

from flap.core.schemas import MELS, provenance
from flap.core.shards import Row, read_table, write_rows
from flap.mels.heads import open_source
from flap.mels.reader import LENGTH_BYTES, check_value, value_pages
from flap.mels.source import Source, from_store, source_of

_SHARDS = 16  # read at a time


def fetch_rows(clips: pd.DataFrame, target: Path) -> pd.DataFrame:
    """The same clips with their log-mels in `target`, where they lie elsewhere.

    Validation reads clips of every shard each time, and shards that it brought in would drive out
    what training reads. So its rows are fetched by themselves, once.

    Args:
        clips: as `flap.mels.clips.usable_clips` gives them.
        target: a MELS file; if it is there, it is what an earlier call for these clips wrote.

    Raises:
        UserError: as of `flap.mels.copies.Copy.fetch`.
    """
    first = pq.read_schema(clips["path"].iloc[0])
    if source_of(first) is None:
        return clips
    if not target.exists():
        write_rows(target, _rows(clips), MELS, provenance(first))
    return clips.assign(path=str(target), row=np.arange(len(clips)))


def _rows(clips: pd.DataFrame) -> Iterator[Row]:
    wanted = [(path, own["row"].tolist()) for path, own in clips.groupby("path", sort=False)]
    with ThreadPoolExecutor(_SHARDS) as pool:
        for start in range(0, len(wanted), _SHARDS):
            for rows in pool.map(lambda one: _rows_of(*one), wanted[start : start + _SHARDS]):
                yield from rows


def _rows_of(path: str, numbers: list[int]) -> list[Row]:
    head = read_table(Path(path), MELS)
    source = source_of(head.schema)
    assert source
    mels = from_store(source.url, lambda: _mels(source, head["n_frames"].to_pylist(), numbers))
    rows = head.take(numbers).to_pylist()
    return [row | {"mel": mel} for row, mel in zip(rows, mels, strict=True)]


def _mels(source: Source, n_frames: list[int], numbers: list[int]) -> list[bytes]:
    """The bytes of these rows' log-mels, one request each."""
    found = []
    with open_source(source) as (file, shard):
        values = [value for page in value_pages(shard, n_frames) for value in page]
        for value in map(values.__getitem__, numbers):
            file.seek(value.start - LENGTH_BYTES)
            read = file.read(value.stop - value.start + LENGTH_BYTES)
            check_value(read[:LENGTH_BYTES], value, source.url)
            found.append(read[LENGTH_BYTES:])
    return found
