"""uri, offset, n_bytes → the bytes of one recording, never more than asked for.

A uri is a path from the project's root, or any URL that fsspec opens (s3://, gs://, hf://); a
recording is the whole file or a range of it, such as a member of a tar.
"""

import errno
import stat
from pathlib import Path
from typing import Any

import fsspec

from flap.audio.rejected import Rejected
from flap.core.errors import UserError, first_line

_GONE = (FileNotFoundError, NotADirectoryError)
_SHUT = (PermissionError, IsADirectoryError)
_ARCHIVES = ("zip://", "tar://")
# What file systems call the stamp of a file's content or of its last change.
_STAMPS = ("ETag", "etag", "blob_id", "md5Hash", "mtime", "LastModified", "updated", "created")


def read_recording(uri: str, offset: int | None, n_bytes: int | None, max_bytes: int) -> bytes:
    """The bytes of a recording; its size is looked at before any is read.

    Args:
        offset: first byte within the file, None for its start.
        n_bytes: how many, None for the rest of the file.
        max_bytes: the most that is read.

    Raises:
        Rejected: missing, unreadable, too_large or empty.
        UserError: no file system is installed for such a URL.
        OSError: the disk or the network fails, which says nothing of the recording.
    """
    try:
        return _read(uri, offset or 0, n_bytes, max_bytes)
    except OSError as error:
        raise (_rejected(uri, error) or error) from error


def identity(uri: str) -> str:
    """A short text that changes when the file does, without reading it.

    Raises:
        UserError: no file system is installed for such a URL.
        OSError: the disk or the network fails.
    """
    try:
        if _is_url(uri):
            filesystem, path = _filesystem(uri)
            info = filesystem.info(path)
            stamps = [f"{info[name]}" for name in _STAMPS if info.get(name) is not None]
            return ":".join([f"{info.get('size')}", *stamps[:1]])
        status = Path(uri).stat()
    except OSError as error:
        rejected = _rejected(uri, error)
        if rejected is None:
            raise
        return rejected.reason
    return f"{status.st_size}:{status.st_mtime_ns}"


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
        if not stat.S_ISREG(status.st_mode):  # to open a pipe would wait for its writer
            raise Rejected("unreadable", f"{uri}: is no regular file")
        stop = _stop(uri, status.st_size, start, n_bytes, max_bytes)
        with Path(uri).open("rb") as file:
            file.seek(start)
            data = file.read(stop - start)
    if len(data) < stop - start:
        raise Rejected("unreadable", f"{uri}: ended while it was read")
    return data


def _stop(uri: str, size: int | None, start: int, n_bytes: int | None, max_bytes: int) -> int:
    """End of the range in a file of `size` bytes, after all that can be said without reading."""
    if size is None:
        raise Rejected("unreadable", f"{uri}: the server does not say how large it is")
    stop = size if n_bytes is None else start + n_bytes
    if stop > size or start > size:
        raise Rejected("unreadable", f"{uri}: bytes {start} to {stop} of {size}")
    if stop == start:
        raise Rejected("empty", f"{uri}: 0 bytes")
    if stop - start > max_bytes:
        raise Rejected("too_large", f"{uri}: {stop - start} bytes, at most {max_bytes}")
    return stop


def _filesystem(uri: str) -> tuple[Any, str]:
    try:
        if "::" in uri and not uri.startswith(_ARCHIVES):  # in a name, not fsspec's chain
            filesystem = fsspec.filesystem(uri.partition("://")[0])
            return filesystem, filesystem._strip_protocol(uri)
        return fsspec.core.url_to_fs(uri)
    except (ImportError, ValueError) as error:
        raise UserError(f"{uri}: no file system for such a URL: {first_line(error)}") from error


def _rejected(uri: str, error: OSError) -> Rejected | None:
    """The reject that an error of the file system is, if it is the file's own fault."""
    why = f"{uri}: {error.strerror or first_line(error)}"
    if isinstance(error, _GONE) or error.errno == errno.ENAMETOOLONG:
        return None if _is_outage(error) else Rejected("missing", why)
    if isinstance(error, PermissionError) and _is_url(uri):
        return None  # credentials that have run out shut every file
    if isinstance(error, _SHUT) or error.errno == errno.ELOOP:
        return Rejected("unreadable", why)
    return None


def _is_outage(error: OSError) -> bool:
    """fsspec's HTTP client says "not found" whatever went wrong; the cause says what."""
    cause = error.__cause__
    if cause is None or isinstance(cause, FileNotFoundError):
        return False
    return getattr(cause, "status", None) not in (404, 410)
