"""Random access to the log-mels of MELS shards, as views of memory-mapped files."""

from collections import OrderedDict
from collections.abc import Iterator, Sequence
from itertools import accumulate
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from flap.core.errors import UserError
from flap.core.schemas import MELS, provenance
from flap.mels.shard_copies import shard_copy

_MAPPED_FILES = 256
LENGTH_BYTES = 4  # before each value of a plain column
_FP16_BYTES = 2


class MelReader:
    """Log-mels by (shard path, row), as views of memory-mapped files: no copy, no decoding.

    A few files stay mapped; memory is used only by the system's page cache. If the path names a
    stub (`flap.mels.stubs`), the reader reads the shard's copy and downloads it if necessary.
    """

    def __init__(self) -> None:
        self._files: OrderedDict[str, _MelFile] = OrderedDict()

    def read(self, path: str, row: int) -> np.ndarray:
        """Full-length log-mel (frames, mel bins), fp16; callers must not write to it.

        Raises:
            UserError: the file is not a MELS shard of the stage `audio`, or its copy cannot be
                downloaded.
        """
        if path not in self._files:
            self._files[path] = _MelFile(path)
            if len(self._files) > _MAPPED_FILES:
                self._files.popitem(last=False)
        self._files.move_to_end(path)
        return self._files[path][row]

    def read_all(self, clips: pd.DataFrame) -> Iterator[np.ndarray]:
        """The log-mels of these clips, in their order."""
        for path, row in zip(clips["path"], clips["row"], strict=True):
            yield self.read(path, row)


class _MelFile:
    """A MELS shard or a copy of one; values of column `mel` are read at their byte offsets."""

    def __init__(self, path: str) -> None:
        self._path, self._copy = path, shard_copy(path)
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
        # A copy is mapped anew for each value: an evicted copy takes space while it is mapped.
        self._mapped = None if self._copy else mapped

    def _map(self) -> np.ndarray:
        with self._copy.open() if self._copy else Path(self._path).open("rb") as file:
            # Copy-on-write: torch warns of views that it may not write.
            return np.memmap(file, np.uint8, mode="c")

    def __getitem__(self, row: int) -> np.ndarray:
        mapped = self._map() if self._mapped is None else self._mapped
        return np.ndarray((self._n_frames[row], self._n_mels), "<f2", mapped, self._starts[row])


def value_pages(file: pq.ParquetFile, n_frames: Sequence[int]) -> Iterator[list[slice]]:
    """Byte ranges of the values of column `mel`: one list for each row group, one slice a row.

    `flap.core.shards` writes the column with plain encoding, and each row group as one page. A
    page is a header and then the values, each after its length in four bytes. The number of frames
    gives each value's length, so counting back from the page's end gives every position.

    Args:
        n_frames: column `n_frames` of the file.
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
    """Raise `UserError` unless `length`, the four bytes before a value, is its length."""
    if int.from_bytes(bytes(length), "little") != value.stop - value.start:
        raise UserError(f"{path}: column 'mel' is not stored as expected; rerun stage audio")
