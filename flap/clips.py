"""CLIPS joined with MELS: the clips that can be heard, and random access to their log-mels."""

from collections import OrderedDict
from collections.abc import Collection, Iterable, Iterator, Sequence
from itertools import accumulate
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from flap.errors import UserError
from flap.mels.copies import copy_of
from flap.schemas import AUDIT, CLIPS, MELS, REJECTS, is_absent_clip, provenance
from flap.shards import REJECTS_FOLDER, read_folder, read_table, shard_paths

_MAPPED_FILES = 256
LENGTH_BYTES = 4  # before each value of a plain column
_FP16_BYTES = 2


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

    A few files stay mapped; what is in memory is the system's page cache. Where the path is that
    of a head (`flap.mels.heads`), the shard's copy is read, fetched if need be.
    """

    def __init__(self) -> None:
        self._files: OrderedDict[str, _MelFile] = OrderedDict()

    def read(self, path: str, row: int) -> np.ndarray:
        """Full-length log-mel (frames, mel bins), fp16, to be left as it is.

        Raises:
            UserError: the file is no MELS shard of ours, or there is none to copy.
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
    """A MELS shard, or a copy of one, whose column `mel` is read from where its bytes are."""

    def __init__(self, path: str) -> None:
        self._path, self._copy = path, copy_of(path)
        mapped = self._map()
        with pq.ParquetFile(pa.BufferReader(mapped)) as file:
            MELS.check(file.schema_arrow, path)
            self._n_mels: int = provenance(file.schema_arrow)["n_mels"]
            n_frames = file.read(["n_frames"], use_threads=False)["n_frames"]
            self._n_frames: list[int] = n_frames.to_pylist()
            pages = list(value_pages(file, self._n_frames))
        for page in pages:
            check_value(mapped[page[0].start - LENGTH_BYTES : page[0].start], page[0], path)
        self._starts = [value.start for page in pages for value in page]
        # A copy is mapped for each value anew: removed while it is mapped, it would keep its space.
        self._mapped = None if self._copy else mapped

    def _map(self) -> np.ndarray:
        with self._copy.open() if self._copy else Path(self._path).open("rb") as file:
            return np.memmap(file, np.uint8, mode="c")  # a view that may be written, not a file

    def __getitem__(self, row: int) -> np.ndarray:
        mapped = self._map() if self._mapped is None else self._mapped
        return np.ndarray((self._n_frames[row], self._n_mels), "<f2", mapped, self._starts[row])


def value_pages(file: pq.ParquetFile, n_frames: Sequence[int]) -> Iterator[list[slice]]:
    """Where the values of column `mel` stand in a MELS shard: a list a row group, a slice a row.

    `flap.shards` writes that column plain and a row group's as one page: behind the page's
    header stand the values, each after its length in four bytes. Lengths follow from the number
    of frames, so counting back from the page's end gives every position.

    Args:
        n_frames: the column of that name.
    """
    column = file.schema_arrow.get_field_index("mel")
    frame_bytes = provenance(file.schema_arrow)["n_mels"] * _FP16_BYTES
    first_row = 0
    for i in range(file.metadata.num_row_groups):
        group = file.metadata.row_group(i)
        rows = slice(first_row, first_row + group.num_rows)
        sizes = [frames * frame_bytes for frames in n_frames[rows]]
        chunk = group.column(column)
        end = chunk.data_page_offset + chunk.total_compressed_size
        to_end = list(accumulate(LENGTH_BYTES + size for size in reversed(sizes)))[::-1]
        starts = [end - distance + LENGTH_BYTES for distance in to_end]
        yield [slice(start, start + size) for start, size in zip(starts, sizes, strict=True)]
        first_row = rows.stop


def check_value(length: np.ndarray | bytes, value: slice, path: str) -> None:
    """Raise `UserError` unless the four bytes before a value are its length."""
    if int.from_bytes(bytes(length), "little") != value.stop - value.start:
        raise UserError(f"{path}: column 'mel' is not stored as expected; rerun stage audio")
