"""CLIPS joined with MELS: the clips that can be heard, and random access to their log-mels."""

from collections import OrderedDict
from collections.abc import Collection, Iterable, Iterator, Sequence
from itertools import accumulate
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow.parquet as pq

from flap.errors import UserError
from flap.schemas import AUDIT, CLIPS, MELS, REJECTS, is_absent_clip, provenance
from flap.shards import REJECTS_FOLDER, read_folder, read_table, shard_paths

_MAPPED_FILES = 256
_FP16_BYTES, _LENGTH_BYTES = 2, 4


def dropped_clips(audit: Path) -> frozenset[str]:
    """Ids of the training clips that the audit (AUDIT in `data/audit`) leaves out of training."""
    found = read_folder(audit, AUDIT, ["clip_id", "dropped"])
    return frozenset(found.loc[found["dropped"], "clip_id"])


def usable_clips(
    clips: Path,
    mels: Path,
    datasets: Iterable[str],
    splits: Sequence[str],
    dropped: Collection[str] = (),
) -> pd.DataFrame:
    """One row a clip of these datasets and splits that has a mel, in shard order.

    Args:
        clips: folder of CLIPS folders, one a dataset (`data/sources`).
        mels: likewise for MELS (`data/audio`).
        dropped: clips to leave out, as `dropped_clips` gives them.

    Returns:
        Columns clip_id, split, uri, offset, n_bytes, captions, labels, path (MELS shard) and
        row (position in it).
    """
    frames, datasets = [], list(datasets)
    for dataset in datasets:
        for mel_shard in shard_paths(mels / dataset):
            heard = read_table(mel_shard, MELS, ["clip_id"]).to_pandas()
            heard["path"], heard["row"] = str(mel_shard), np.arange(len(heard))
            columns = ["clip_id", "split", "uri", "offset", "n_bytes", "captions", "labels"]
            known = read_table(clips / dataset / mel_shard.name, CLIPS, columns).to_pandas()
            frames.append(known[known["split"].isin(splits)].merge(heard, on="clip_id"))
    found = pd.concat(frames)
    found = found[~found["clip_id"].isin(dropped)].reset_index(drop=True)
    if found.empty:
        left_out = f", {len(dropped)} clips left out by the audit" if dropped else ""
        raise UserError(
            f"{mels}: no clip of split {'/'.join(splits)} in {', '.join(datasets)}{left_out}; "
            "give that split clips in the corpus's CSV or in params.yaml, section datasets"
        )
    return found


def count_described(clips: Path, split: str) -> int:
    """Clips that a corpus says a split has, whether they are there or not.

    Args:
        clips: the corpus's folder of CLIPS, with its rejects.
    """
    present = read_folder(clips, CLIPS, ["split"])["split"] == split
    rejected = (clips / REJECTS_FOLDER).glob("shard-*.parquet")
    rows = [row for path in rejected for row in read_table(path, REJECTS).to_pylist()]
    absent = [row for row in rows if row["split"] == split and is_absent_clip(row["reason"])]
    return int(present.sum()) + len(absent)


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
    """Log-mels by (shard path, row), as views of the mapped files: no copy, no decoding.

    A few files stay mapped; what is in memory is the system's page cache.
    """

    def __init__(self) -> None:
        self._files: OrderedDict[str, _MelFile] = OrderedDict()

    def read(self, path: str, row: int) -> np.ndarray:
        """Full-length log-mel (frames, mel bins), fp16, to be left as it is.

        Raises:
            UserError: the file is no MELS shard of ours.
        """
        if path not in self._files:
            self._files[path] = _MelFile(path)
            if len(self._files) > _MAPPED_FILES:
                self._files.popitem(last=False)
        self._files.move_to_end(path)
        return self._files[path][row]

    def read_all(self, clips: pd.DataFrame) -> Iterator[np.ndarray]:
        """The log-mels of these clips, one after the other."""
        for path, row in zip(clips["path"], clips["row"], strict=True):
            yield self.read(path, row)


class _MelFile:
    """A MELS shard whose column `mel` is read from where its bytes are.

    `flap.shards` writes that column plain and a row group's as one page: behind the page's
    header stand the values, each after its length in four bytes. Lengths follow from the number
    of frames, so counting back from the page's end gives every position; the length before the
    first value has to agree.
    """

    def __init__(self, path: str) -> None:
        with pq.ParquetFile(path, memory_map=True) as file:
            MELS.check(file.schema_arrow, path)
            self._n_mels: int = provenance(file.schema_arrow)["n_mels"]
            n_frames = file.read(["n_frames"], use_threads=False)["n_frames"].to_numpy()
            pages = list(_pages(file.metadata, file.schema_arrow.get_field_index("mel")))
        self._bytes = np.memmap(path, np.uint8, mode="c")  # a view that may be written, not a file
        self._n_frames: list[int] = n_frames.tolist()
        self._starts = [start for page in pages for start in self._value_starts(path, *page)]

    def _value_starts(self, path: str, rows: slice, end: int) -> list[int]:
        """Position of each value's first byte in the page of these rows that ends at `end`."""
        sizes = [n_frames * self._n_mels * _FP16_BYTES for n_frames in self._n_frames[rows]]
        to_end = accumulate(_LENGTH_BYTES + size for size in reversed(sizes))
        starts = [end - distance + _LENGTH_BYTES for distance in to_end][::-1]
        length = self._bytes[starts[0] - _LENGTH_BYTES : starts[0]].tobytes()
        if int.from_bytes(length, "little") != sizes[0]:
            raise UserError(f"{path}: column 'mel' is not stored as expected; rerun stage audio")
        return starts

    def __getitem__(self, row: int) -> np.ndarray:
        shape = self._n_frames[row], self._n_mels
        return np.ndarray(shape, "<f2", self._bytes, self._starts[row])


def _pages(metadata: pq.FileMetaData, column: int) -> Iterator[tuple[slice, int]]:
    """Rows of each row group, and the position behind a column's last value."""
    first_row = 0
    for i in range(metadata.num_row_groups):
        group = metadata.row_group(i)
        chunk = group.column(column)
        rows = slice(first_row, first_row + group.num_rows)
        yield rows, chunk.data_page_offset + chunk.total_compressed_size
        first_row = rows.stop
