"""CLIPS joined with MELS: the clips that can be heard, and random access to their log-mels."""

from collections import OrderedDict
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from flap.errors import UserError
from flap.schemas import CLIPS, MELS, mel_array, provenance
from flap.shards import read_table, shard_paths

_MIDDLE = 0.5


def usable_clips(
    clips: Path, mels: Path, datasets: Iterable[str], splits: Sequence[str]
) -> pd.DataFrame:
    """One row a clip of these datasets and splits that has a mel, in shard order.

    Args:
        clips: folder of CLIPS folders, one a dataset (`data/sources`).
        mels: likewise for MELS (`data/audio`).

    Returns:
        Columns clip_id, captions, labels, path (MELS shard) and row (position in it).
    """
    frames, datasets = [], list(datasets)
    for dataset in datasets:
        for mel_shard in shard_paths(mels / dataset):
            heard = read_table(mel_shard, MELS, ["clip_id"]).to_pandas()
            heard["path"], heard["row"] = str(mel_shard), np.arange(len(heard))
            columns = ["clip_id", "split", "captions", "labels"]
            known = read_table(clips / dataset / mel_shard.name, CLIPS, columns).to_pandas()
            frames.append(known[known["split"].isin(splits)].merge(heard, on="clip_id"))
    found = pd.concat(frames, ignore_index=True)
    if found.empty:
        raise UserError(
            f"{mels}: no clip of split {'/'.join(splits)} in {', '.join(datasets)}; "
            "give that split clips in the corpus's CSV or in params.yaml, section datasets"
        )
    return found


def crop_or_pad(mel_TF: np.ndarray, clip_frames: int, position: float) -> np.ndarray:
    """Exactly `clip_frames` frames of a log-mel, float32.

    Longer mels are cropped, starting at share `position` (0 front, 0.5 middle, 1 back) of
    the possible starts; shorter ones are padded with zeros at the end, as MAViL does.
    """
    spare = len(mel_TF) - clip_frames
    if spare >= 0:
        start = min(int(position * (spare + 1)), spare)
        return mel_TF[start : start + clip_frames].astype(np.float32)
    return np.pad(mel_TF.astype(np.float32), ((0, -spare), (0, 0)))


def check_front_end(clips: pd.DataFrame, n_mels: int) -> None:
    """Raise `UserError` unless the MELS of these clips have `n_mels` bins, by their metadata."""
    for path in clips["path"].unique():
        found = provenance(pq.read_schema(path)).get("n_mels", n_mels)
        if found != n_mels:
            raise UserError(f"{path}: has {found} mel bins, encoder.n_mels is {n_mels}")


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

    def middle_windows(self, clips: pd.DataFrame, clip_frames: int) -> np.ndarray:
        """Middle windows (clips, clip_frames, mel bins), float32: evaluation draws nothing."""
        where = zip(clips["path"], clips["row"], strict=True)
        return np.stack(
            [crop_or_pad(self.read(path, row), clip_frames, _MIDDLE) for path, row in where]
        )

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
