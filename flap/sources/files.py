"""The files of a corpus by name relative to its folder, which is on this disk or at a URL."""

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
    """The files below `root`, a path relative to the project's root or an fsspec URL."""

    def __init__(self, root: str) -> None:
        """
        Raises:
            UserError: no installed library supports the URL's protocol.
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
            UserError: the server does not answer, or refuses access.
        """
        try:
            return bool(self._fs.isdir(self._base))
        except Exception as error:  # each client has its own classes
            raise UserError(
                f"{self.root}: cannot be read ({first_line(error)}); check the credentials and "
                "the endpoint of its fsspec client"
            ) from None

    def check_folder(self) -> None:
        """
        Raises:
            UserError: there is no such folder, or it cannot be read.
        """
        if not self.is_folder:
            raise UserError(f"{self.root}: no such folder; set `path` to the folder of the corpus")

    def uri(self, name: str) -> str:
        """The file's path or URL for the column `uri` of CLIPS; relative paths stay relative."""
        return f"{self.root}/{name}"

    def find(self, *suffixes: str) -> list[str]:
        """Sorted names of all files below the root with one of `suffixes`, in upper or lower case.

        Hidden files and folders are left out, such as the "._" files of macOS.
        """
        return [
            name
            for name in self._names
            if name.lower().endswith(suffixes)
            and not any(part.startswith(".") for part in PurePosixPath(name).parts)
        ]

    @cached_property
    def recordings(self) -> dict[str, list[str]]:
        """Name without folder and extension → all recordings with that name below the root."""
        found: dict[str, list[str]] = {}
        for name in self.find(*RECORDING_SUFFIXES):
            found.setdefault(stem(name), []).append(name)
        return found

    def recordings_named(
        self, stem: str, folder: str, other_folders: Sequence[str] = ()
    ) -> list[str]:
        """Recordings with a name: those below `folder`, or else those outside `other_folders`.

        Args:
            stem: name without folder and extension.
            folder: name of the preferred folder, "" for none.
            other_folders: names of folders in which the name belongs to another recording.
        """
        named = self.recordings.get(stem, [])
        preferred = [name for name in named if in_folder(name, folder)] if folder else []
        if preferred:
            return preferred
        return [name for name in named if not any(in_folder(name, f) for f in other_folders)]

    @property
    def linked_folders(self) -> list[str]:
        """Links to folders; they are not followed, for they may lead out of the corpus."""
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
            UserError: the file is missing, is no file, or may not be read.
        """
        try:
            return self._fs.open(f"{self._base}/{name}", "rb")
        except OSError as error:
            raise UserError(
                f"{self.uri(name)}: cannot be read: {error.strerror or first_line(error)}"
            ) from None

    def exists(self, name: str) -> bool:
        """Whether the name exists; the file may still be unreadable."""
        if self._local:
            return os.path.lexists(f"{self._base}/{name}")
        return name in self._name_set

    def escapes(self, name: str) -> bool:
        """Whether a name leaves the root: an absolute path, "..", or a symbolic link."""
        path = PurePosixPath(name)
        if path.is_absolute() or ".." in path.parts:
            return True
        if not self._local:
            return False
        root = os.path.realpath(self._base)
        return os.path.commonpath([root, os.path.realpath(f"{root}/{name}")]) != root

    @cached_property
    def _names(self) -> list[str]:
        """Sorted names of all files below the root, from one listing."""
        found: Any = self._fs.find(self._base)
        return sorted(path.removeprefix(self._base).lstrip("/") for path in found)

    @cached_property
    def _name_set(self) -> frozenset[str]:
        return frozenset(self._names)


def stem(name: str) -> str:
    """Name without folder, extension and surrounding blanks (cells of tables lose such blanks)."""
    return PurePosixPath(name).stem.strip()


def without_suffix(name: str) -> str:
    """Name without its extension but with its folders, for a clip's id."""
    return PurePosixPath(name.removesuffix(PurePosixPath(name).suffix)).as_posix()


def in_folder(name: str, folder: str) -> bool:
    """Whether a folder on the file's path contains `folder` in its name; case is ignored."""
    return any(folder.lower() in part.lower() for part in PurePosixPath(name).parent.parts)
