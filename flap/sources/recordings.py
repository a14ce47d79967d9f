"""The recordings of a corpus by stem, for corpora whose tables name no path."""

from collections import defaultdict
from pathlib import PurePosixPath

from flap.sources.files import CorpusFiles

KINDS = (".wav", ".flac", ".ogg", ".mp3", ".opus", ".m4a", ".aac", ".webm", ".mp4", ".mkv", ".aif")
SUFFIXES = (*KINDS, *(kind.upper() for kind in KINDS))


class Recordings:
    """Every recording below a corpus's folder, found by the name of its file alone."""

    def __init__(self, files: CorpusFiles) -> None:
        self._paths = defaultdict[str, list[str]](list)
        for path in files.find(*SUFFIXES):
            self._paths[PurePosixPath(path).stem].append(path)

    def find(self, *stems: str, near: str = "") -> str | None:
        """Path of the first of `stems` that is there, one with `near` in its folder first."""
        for stem in stems:
            if paths := self._paths.get(stem):
                return next((p for p in paths if near in str(PurePosixPath(p).parent)), paths[0])
        return None
