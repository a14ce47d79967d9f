"""uri, offset, n_bytes → the bytes of one recording; nothing else is read.

A uri is a path relative to the project's root, or a URL that fsspec opens (s3://, gs://, hf://).
A recording is a whole file or a byte range of a file, such as a member of a tar.
"""

import errno
import stat
from pathlib import Path
from typing import Any

import fsspec

from flap.audio.rejected import Rejected
from flap.core.errors import UserError, first_line
from flap.core.remote import file_version
from flap.core.work import identity

_MISSING_ERRORS = (FileNotFoundError, NotADirectoryError)
_UNREADABLE_ERRORS = (PermissionError, IsADirectoryError)
_ARCHIVES = ("zip://", "tar://")


def read_recording(uri: str, offset: int | None, n_bytes: int | None, max_bytes: int) -> bytes:
    """The bytes of a recording; its size is checked before any byte is read.

    Args:
        offset: first byte within the file, None for its start.
        n_bytes: number of bytes, None for the rest of the file.
        max_bytes: largest permitted number of bytes.

    Raises:
        Rejected: the recording is missing, unreadable, too_large or empty.
        UserError: no installed file system opens the URL.
        OSError: the disk or the network failed; the recording may be good.
    """
    try:
        return _read(uri, offset or 0, n_bytes, max_bytes)
    except OSError as error:
        raise (_rejected(uri, error) or error) from error


def recording_version(uri: str) -> str:
    """A short text that changes when the file changes; the file is not read.

    Returns:
        Size and stamp of the file, or the reason for which the recording will be rejected.

    Raises:
        UserError: no installed file system opens the URL.
        OSError: the disk or the network failed.
    """
    try:
        if not _is_url(uri):
            return identity(Path(uri))
        filesystem, path = _filesystem(uri)
        return file_version(filesystem, filesystem.info(path))
    except OSError as error:
        rejected = _rejected(uri, error)
        if rejected is None:
            raise
        return rejected.reason


def _is_url(uri: str) -> bool:
    return "://" in uri


def _read(uri: str, start: int, n_bytes: int | None, max_bytes: int) -> bytes:
    if _is_url(uri):
        filesystem, path = _filesystem(uri)
        info = filesystem.info(path)
        if info["type"] == "directory":
            raise Rejected("unreadable", f"{uri}: is a directory")
        stop = _stop(uri, info.get("size"), start, n_bytes, max_bytes)
        data = filesystem.cat_file(path, start=start, end=stop)
    else:
        status = Path(uri).stat()
        if not stat.S_ISREG(status.st_mode):  # opening a pipe would block until it has a writer
            raise Rejected("unreadable", f"{uri}: is no regular file")
        stop = _stop(uri, status.st_size, start, n_bytes, max_bytes)
        with Path(uri).open("rb") as file:
            file.seek(start)
            data = file.read(stop - start)
    if len(data) < stop - start:
        raise Rejected("unreadable", f"{uri}: the file became shorter while it was read")
    return data


def _stop(uri: str, size: int | None, start: int, n_bytes: int | None, max_bytes: int) -> int:
    """End of the range in a file of `size` bytes.

    Raises:
        Rejected: the size is unknown, or the range is outside of the file, empty or too large.
    """
    if size is None:
        raise Rejected("unreadable", f"{uri}: the server does not report the file's size")
    stop = size if n_bytes is None else start + n_bytes
    if stop > size or start > size:
        raise Rejected("unreadable", f"{uri}: bytes {start} to {stop} are not in its {size} bytes")
    if stop == start:
        raise Rejected("empty", f"{uri}: 0 bytes")
    if stop - start > max_bytes:
        raise Rejected("too_large", f"{uri}: {stop - start} bytes, at most {max_bytes}")
    return stop


def _filesystem(uri: str) -> tuple[Any, str]:
    try:
        if "::" in uri and not uri.startswith(_ARCHIVES):  # "::" in a name is no chain of fsspec's
            filesystem = fsspec.filesystem(uri.partition("://")[0])
            return filesystem, filesystem._strip_protocol(uri)
        return fsspec.core.url_to_fs(uri)
    except (ImportError, ValueError) as error:
        raise UserError(
            f"{uri}: no installed file system opens this URL ({first_line(error)}); install the "
            "package of fsspec for its protocol"
        ) from error


def _rejected(uri: str, error: OSError) -> Rejected | None:
    """The reject for a file system's error; None if the file itself is not at fault."""
    why = f"{uri}: {error.strerror or first_line(error)}"
    if isinstance(error, _MISSING_ERRORS) or error.errno == errno.ENAMETOOLONG:
        return None if _is_outage(error) else Rejected("missing", why)
    if isinstance(error, PermissionError) and _is_url(uri):
        return None  # expired credentials block every file, not this one
    if isinstance(error, _UNREADABLE_ERRORS) or error.errno == errno.ELOOP:
        return Rejected("unreadable", why)
    return None


def _is_outage(error: OSError) -> bool:
    """Whether "not found" hides another failure of the server.

    fsspec's HTTP client raises FileNotFoundError for every failure; the cause has the status.
    """
    cause = error.__cause__
    if cause is None or isinstance(cause, FileNotFoundError):
        return False
    return getattr(cause, "status", None) not in (404, 410)
