"""The output of an adapter: each recording as its corpus describes it, before any check.

An adapter knows the format of its corpus and nothing else. It yields a `Record` for each recording
that the corpus describes, in the order of the corpus, so that recordings added later do not change
earlier shards. `flap.sources.corpus` turns records into clips.
"""

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from flap.core.shards import atomic_path
from flap.sources.files import CorpusFiles

RECORDINGS_FOLDER = "_recordings"


@dataclass(frozen=True, kw_only=True)
class Record:
    """One recording as its corpus describes it, before any check."""

    where: str
    """Place of the description, for the reject's detail, such as "captions.csv, line 6"."""
    recording: str
    """Path in the corpus's folder with "/" between its parts."""
    name: str
    """Short form of `recording` for the clip's id; need not be unique."""
    captions: Sequence[str] = ()
    labels: Sequence[str] = ()
    split: str | None = None
    """The corpus's name of the split; None: the split is drawn."""
    split_keys: Sequence[str] = ()
    """Records that share a key get the same drawn split; default: captions and origin."""
    duration_s: float | None = None
    licence: str = ""
    source: str = ""
    origin: str = ""
    location: "Location | None" = None
    """Location of the bytes; None: the whole file `recording`."""
    recording_key: str = ""
    """Equal in all records of one recording; default: `recording`."""


@dataclass(frozen=True)
class Location:
    """A file or a byte range of a file, as in CLIPS."""

    uri: str
    offset: int | None = None
    n_bytes: int | None = None


@dataclass(frozen=True)
class RejectedRecord:
    """A recording that the adapter or the merging of duplicates rejects."""

    where: str
    recording: str
    reason: str
    detail: str
    split: str | None = None
    """The corpus's name of the split, None if unknown."""


@dataclass(frozen=True)
class AdapterOutput:
    """What an adapter produces beside its records: notes and stored recordings."""

    work: Path
    """Work folder, which will be published as `out`."""
    out: Path
    notes: list[str] = field(default_factory=list)
    """Messages to the user about the corpus, one sentence each."""

    def store(self, data: bytes, suffix: str) -> Location:
        """Store a recording that has no file of its own, such as a cell of a Parquet table.

        The file's name is the hash of the bytes: equal recordings are stored once, and a resumed
        run never uses an outdated file.
        """
        digest = hashlib.sha256(data).hexdigest()
        path = Path(RECORDINGS_FOLDER) / digest[:2] / f"{digest}{suffix}"
        if not (self.work / path).exists():
            with atomic_path(self.work / path) as temporary:
                temporary.write_bytes(data)
        return Location((self.out / path).as_posix())


Adapter = Callable[[CorpusFiles, Any, AdapterOutput], Iterator[Record | RejectedRecord]]
"""Arguments: files of the corpus, its entry of `datasets`, and where to put notes."""
