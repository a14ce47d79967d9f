"""What an adapter yields: each recording as its corpus describes it, nothing checked yet.

An adapter knows its corpus's format and nothing else. It yields an `Record` for each recording that
the corpus describes, in the corpus's own order, so that what is added later comes last and the
shards before it stay as they are. `flap.sources.corpus` makes clips of them.
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
    """One recording as its corpus describes it; nothing is checked yet."""

    where: str
    """What to look at if it is refused, such as "captions.csv, line 6"."""
    recording: str
    """Path in the corpus's folder, "/" between its parts."""
    name: str
    """Short form of `recording`, for the clip's id; it need not be unique."""
    captions: Sequence[str] = ()
    labels: Sequence[str] = ()
    split: str | None = None
    """As the corpus calls it; None: to be drawn."""
    together: Sequence[str] = ()
    """What must not be in two splits, if not the captions and the origin."""
    duration_s: float | None = None
    licence: str = ""
    source: str = ""
    origin: str = ""
    place: "Location | None" = None
    """Where the bytes are, if not in the file `recording`."""
    same: str = ""
    """Equal in records that are one recording with several captions, if `recording` is not."""


@dataclass(frozen=True)
class Location:
    """A file, or some bytes of it, as CLIPS names them."""

    uri: str
    offset: int | None = None
    n_bytes: int | None = None


@dataclass(frozen=True)
class RejectedRecord:
    """A recording that the adapter itself has to refuse."""

    where: str
    recording: str
    reason: str
    detail: str
    split: str | None = None
    """As the corpus calls it, if it does."""


@dataclass(frozen=True)
class AdapterOutput:
    """What an adapter can leave beside its records."""

    work: Path
    """Folder in the making, which will be published as `out`."""
    out: Path
    notes: list[str] = field(default_factory=list)
    """What the user should know of the corpus, one sentence each."""

    def keep(self, data: bytes, suffix: str) -> Location:
        """Store a recording that lies in no file of its own, once, below the shards' folder.

        Its name is its hash, so that a run which goes on after a kill takes no stale one.
        """
        digest = hashlib.sha256(data).hexdigest()
        path = Path(RECORDINGS_FOLDER) / digest[:2] / f"{digest}{suffix}"
        if not (self.work / path).exists():
            with atomic_path(self.work / path) as temporary:
                temporary.write_bytes(data)
        return Location((self.out / path).as_posix())


Adapter = Callable[[CorpusFiles, Any, AdapterOutput], Iterator[Record | RejectedRecord]]
"""The corpus's files, its section of params.yaml, and where to leave the rest → what it holds."""
