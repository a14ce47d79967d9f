"""The files of a corpus, by name from its folder, whether that is on this disk or a URL."""

import os
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import IO, Any

import fsspec
from fsspec.implementations.local import LocalFileSystem

from flap.core.errors import UserError, first_line

RECORDING_SUFFIXES = (
    *(".flac", ".wav", ".ogg", ".oga", ".opus", ".mp3", ".m4a", ".aac", ".wma"),
    *(".aif", ".aiff", ".caf", ".au", ".webm", ".mp4", ".mkv", ".mov"),
)


class CorpusFiles:
    """What lies under `root`, a path from the project's root or an fsspec URL."""

    def __init__(self, root: str) -> None:
        """
        Raises:
            UserError: no library here speaks the URL's protocol.
        """
        self.root = os.path.expanduser(root.rstrip("/"))  # noqa: PTH111 - URLs are no paths
        try:
            self._fs, self._base = fsspec.url_to_fs(self.root)
        except (ImportError, ValueError) as error:
            raise UserError(f"{root}: {first_line(error)}") from None
        self._local = isinstance(self._fs, LocalFileSystem)

    @property
    def is_folder(self) -> bool:
        """
        Raises:
            UserError: its server does not answer, or does not let us in.
        """
        try:
            return bool(self._fs.isdir(self._base))
        except Exception as error:  # each client has its own classes
            raise UserError(
                f"{self.root}: cannot be read ({first_line(error)}); check the credentials and "
                "the endpoint that its fsspec client takes"
            ) from None

    def check_folder(self) -> None:
        """
        Raises:
            UserError: there is no such folder, or it cannot be read.
        """
        if not self.is_folder:
            raise UserError(f"{self.root}: no such folder; name the folder that holds the corpus")

    def uri(self, name: str) -> str:
        """Where a file is, as CLIPS says it: relative paths stay relative."""
        return f"{self.root}/{name}"

    def find(self, *suffixes: str) -> list[str]:
        """Names of all files below the root that end in one of `suffixes`, in any case, in order.

        Hidden files and folders are left out, such as what macOS puts beside the true ones.
        """
        return [
            name
            for name in self._names
            if name.lower().endswith(suffixes)
            and not any(part.startswith(".") for part in PurePosixPath(name).parts)
        ]

    @cached_property
    def recordings(self) -> dict[str, list[str]]:
        """Name without folder and extension → the recordings below the root that have it."""
        found: dict[str, list[str]] = {}
        for name in self.find(*RECORDING_SUFFIXES):
            found.setdefault(stem(name), []).append(name)
        return found

    def recordings_named(self, stem: str, folder: str, others: Sequence[str] = ()) -> list[str]:
        """Recordings with a name, those below a folder of that name if there are any.

        Args:
            others: names of folders that are known to hold other recordings of equal names.
        """
        same = self.recordings.get(stem, [])
        own = [name for name in same if in_folder(name, folder)] if folder else []
        return own or [n for n in same if not any(in_folder(n, other) for other in others)]

    @property
    def linked_folders(self) -> list[str]:
        """Links to folders, which are not followed: they may lead anywhere."""
        if not self._local:
            return []
        return sorted(
            os.path.relpath(f"{folder}/{name}", self._base)
            for folder, names, _ in os.walk(self._base)
            for name in names
            if Path(folder, name).is_symlink()
        )

    def open(self, name: str) -> IO[bytes]:
        """
        Raises:
            UserError: it is not there, no file, or shut.
        """
        try:
            return self._fs.open(f"{self._base}/{name}", "rb")
        except OSError as error:
            raise UserError(
                f"{self.uri(name)}: cannot be read: {error.strerror or first_line(error)}"
            ) from None

    def exists(self, name: str) -> bool:
        """Whether there is anything of that name; whether it can be read is seen when it is."""
        if self._local:
            return os.path.lexists(f"{self._base}/{name}")
        return name in self._known

    def escapes(self, name: str) -> bool:
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


def stem(name: str) -> str:
    """Name without folder and extension, nor blanks around it, which tables do not keep."""
    return PurePosixPath(name).stem.strip()


def without_suffix(name: str) -> str:
    """Name with its folders and without extension, for a clip's id."""
    return PurePosixPath(name.removesuffix(PurePosixPath(name).suffix)).as_posix()


def in_folder(name: str, folder: str) -> bool:
    """Whether one of the folders on a file's path has `folder` in its name, in any case."""
    return any(folder.lower() in part.lower() for part in PurePosixPath(name).parent.parts)
