"""Files of an fsspec file system → a text that tells one version of a file from the next."""

from datetime import datetime
from pathlib import Path
from typing import Any

from fsspec.implementations.local import LocalFileSystem

from flap.core.work import identity

# Keys of fsspec's `info`: each file system has its own. Hashes of the content come first.
_HASHES = ("ETag", "etag", "blob_id", "md5Hash")
_TIMES = ("mtime", "LastModified", "last_modified", "updated", "created")


def file_version(fs: Any, info: dict[str, Any]) -> str:
    """Size and content hash of a file, or size and modification time; the file is not read.

    Args:
        fs: fsspec file system that holds the file.
        info: what `fs.info` or a listing says of the file.

    Raises:
        OSError: a local file cannot be examined.
    """
    if isinstance(fs, LocalFileSystem):
        return identity(Path(info["name"]))
    stamp = next((info[key] for key in (*_HASHES, *_TIMES) if info.get(key)), "")
    if isinstance(stamp, datetime):  # some file systems give a datetime here, a number in listings
        stamp = stamp.timestamp()
    return f"{info.get('size')}:{stamp}".replace('"', "")
