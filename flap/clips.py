"""CLIPS joined with MELS: the clips that can be heard, and random access to their log-mels."""

from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import accumulate
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from flap.errors import UserError
from flap.schemas import CLIPS, MELS, mel_array, provenance
from flap.shards import read_table, shard_paths

KeyT = TypeVar("KeyT")
ValueT = TypeVar("ValueT")
_RowGroup = tuple[pa.Array, list[int]]  # columns mel and n_frames
_OPEN_FILES = 64


def usable_clips(
    clips: Path, mels: Path, datasets: Iterable[str], splits: Sequence[str]
) -> pd.DataFrame:
    """One row a clip of these datasets and splits that has a mel, in shard order.

    Args:
        clips: folder of CLIPS folders, one a dataset (`data/sources`).
        mels: likewise for MELS (`data/audio`).

    Returns:
        Columns clip_id, uri, captions, labels, path (MELS shard) and row (position in it).
    """
    frames, datasets = [], list(datasets)
    for dataset in datasets:
        for mel_shard in shard_paths(mels / dataset):
            heard = read_table(mel_shard, MELS, ["clip_id"]).to_pandas()
            heard["path"], heard["row"] = str(mel_shard), np.arange(len(heard))
            columns = ["clip_id", "split", "uri", "captions", "labels"]
            known = read_table(clips / dataset / mel_shard.name, CLIPS, columns).to_pandas()
            frames.append(known[known["split"].isin(splits)].merge(heard, on="clip_id"))
    found = pd.concat(frames, ignore_index=True)
    if found.empty:
        raise UserError(
            f"{mels}: no clip of split {'/'.join(splits)} in {', '.join(datasets)}; "
            "give that split clips in the corpus's CSV or in params.yaml, section datasets"
        )
    return found


def check_front_end(clips: pd.DataFrame, n_mels: int) -> dict[str, Any]:
    """The front end that made the MELS of these clips, by their metadata.

    Raises:
        UserError: they have not `n_mels` bins, or not all one front end.
    """
    paths = clips["path"].unique()
    front_end = provenance(pq.read_schema(paths[0]))
    if front_end.get("n_mels", n_mels) != n_mels:
        raise UserError(
            f"{paths[0]}: has {front_end['n_mels']} mel bins, encoder.n_mels is {n_mels}"
        )
    for path in paths[1:]:
        if provenance(pq.read_schema(path)) != front_end:
            raise UserError(f"{path}: has another front end than {paths[0]}; rerun stage audio")
    return front_end


class MelReader:
    """Log-mels by (shard path, row), through a bounded cache of Parquet row groups.

    Files stay open and mapped, and are read in the caller's thread: with that, the plain column
    `mel` comes at four fifths of a memory map's speed (`benchmarks.mel_read`).
    """

    def __init__(self, cached_row_groups: int) -> None:
        self._limit = cached_row_groups
        self._groups: OrderedDict[tuple[str, int], _RowGroup] = OrderedDict()
        self._files: OrderedDict[str, _MelFile] = OrderedDict()

    def read(self, path: str, row: int) -> np.ndarray:
        """Full-length log-mel (frames, mel bins), fp16, read-only."""
        file = _cached(self._files, path, lambda: _MelFile(path), _OPEN_FILES)
        index, offset = file.find(row)
        mel, n_frames = _cached(self._groups, (path, index), lambda: file.read(index), self._limit)
        return mel_array(mel[offset].as_buffer(), n_frames[offset])

    def read_all(self, clips: pd.DataFrame) -> Iterator[np.ndarray]:
        """The log-mels of these clips, one after the other."""
        for path, row in zip(clips["path"], clips["row"], strict=True):
            yield self.read(path, row)


class _MelFile:
    """An open MELS shard."""

    def __init__(self, path: str) -> None:
        self._file = pq.ParquetFile(path, memory_map=True)
        metadata = self._file.metadata
        sizes = [metadata.row_group(i).num_rows for i in range(metadata.num_row_groups)]
        self._starts = list(accumulate(sizes[:-1], initial=0))

    def find(self, row: int) -> tuple[int, int]:
        """The row group that holds `row`, and its position there."""
        index = bisect_right(self._starts, row) - 1
        return index, row - self._starts[index]

    def read(self, index: int) -> _RowGroup:
        columns = ["mel", "n_frames"]
        group = self._file.read_row_group(index, columns=columns, use_threads=False)
        return group["mel"].combine_chunks(), group["n_frames"].to_pylist()


def _cached(
    cache: OrderedDict[KeyT, ValueT], key: KeyT, make: Callable[[], ValueT], limit: int
) -> ValueT:
    """The value of `key`, made if it is not among the `limit` that were asked for last."""
    if key not in cache:
        cache[key] = make()
        if len(cache) > limit:
            cache.popitem(last=False)
    cache.move_to_end(key)
    return cache[key]
