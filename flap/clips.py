"""CLIPS joined with MELS: the clips that can be heard, and random access to their log-mels."""

from collections import OrderedDict
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from flap.errors import UserError
from flap.schemas import CLIPS, MELS, mel_array, provenance
from flap.shards import read_table, shard_paths


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
    """Log-mels by (shard path, row), through a bounded cache of Parquet row groups."""

    def __init__(self, cached_row_groups: int) -> None:
        self._limit = cached_row_groups
        self._groups: OrderedDict[tuple[str, int], pa.Table] = OrderedDict()
        self._starts: dict[str, np.ndarray] = {}

    def read(self, path: str, row: int) -> np.ndarray:
        """Full-length log-mel (frames, mel bins), fp16, read-only."""
        starts = self._row_group_starts(path)
        index = int(np.searchsorted(starts, row, side="right")) - 1
        group, offset = self._group(path, index), row - int(starts[index])
        return mel_array(group["mel"][offset].as_py(), group["n_frames"][offset].as_py())

    def read_all(self, clips: pd.DataFrame) -> Iterator[np.ndarray]:
        """The log-mels of these clips, one after the other."""
        for path, row in zip(clips["path"], clips["row"], strict=True):
            yield self.read(path, row)

    def _row_group_starts(self, path: str) -> np.ndarray:
        if path not in self._starts:
            metadata = pq.read_metadata(path)
            sizes = [metadata.row_group(i).num_rows for i in range(metadata.num_row_groups)]
            self._starts[path] = np.cumsum([0, *sizes[:-1]])
        return self._starts[path]

    def _group(self, path: str, index: int) -> pa.Table:
        key = (path, index)
        if key not in self._groups:
            with pq.ParquetFile(path) as file:
                self._groups[key] = file.read_row_group(index, columns=["n_frames", "mel"])
            if len(self._groups) > self._limit:
                self._groups.popitem(last=False)
        self._groups.move_to_end(key)
        return self._groups[key]
