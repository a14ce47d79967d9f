"""The files of a corpus, by name from its folder, whether that is on this disk or a URL."""

import os
from functools import cached_property
from pathlib import PurePosixPath
from typing import IO, Any

import fsspec
from fsspec.implementations.local import LocalFileSystem

from flap.errors import UserError, first_line


class CorpusFiles:
    """What lies under `root`, a path from the project's root or an fsspec URL."""

    def __init__(self, root: str) -> None:
        """
        Raises:
            UserError: there is no such folder, or no library here speaks the URL's protocol.
        """
        self.root = root.rstrip("/")
        try:
            self._fs, self._base = fsspec.url_to_fs(self.root)
        except (ImportError, ValueError) as error:
            raise UserError(f"{root}: {first_line(error)}") from None
        self._local = isinstance(self._fs, LocalFileSystem)
        if not self._fs.isdir(self._base):
            raise UserError(f"{root}: no such folder; name the folder that holds the corpus")

    def uri(self, name: str) -> str:
        """Where a file is, as CLIPS says it: relative paths stay relative."""
        return f"{self.root}/{name}"

    def find(self, *suffixes: str) -> list[str]:
        """Names of all files below the root that end in one of `suffixes`, in order."""
        return [name for name in self._names if name.endswith(suffixes)]

    def open(self, name: str) -> IO[bytes]:
        return self._fs.open(f"{self._base}/{name}", "rb")

    def has(self, name: str) -> bool:
        """Whether there is anything of that name; whether it can be read is seen when it is."""
        if self._local:
            return os.path.lexists(f"{self._base}/{name}")
        return name in self._known

    def leaves(self, name: str) -> bool:
        """Whether a name is absolute, climbs by "..", or leads out through a symbolic link."""
        path = PurePosixPath(name)
        if path.is_absolute() or ".." in path.parts:
            return True
        if not self._local:
            return False
        inside = os.path.realpath(self._base)
        return os.path.commonpath([inside, os.path.realpath(f"{inside}/{name}")]) != inside

    @cached_property
    def _names(self) -> list[str]:
        """Every file below the root, from one listing."""
        found: Any = self._fs.find(self._base)
        return sorted(path.removeprefix(self._base).lstrip("/") for path in found)

    @cached_property
    def _known(self) -> frozenset[str]:
        return frozenset(self._names)
