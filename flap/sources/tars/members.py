"""The members of a tar: the byte range of each, and the content of JSON members."""

import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import IO

from flap.core.errors import first_line

_MAX_JSON_BYTES = 16 << 20
_END = bytes(tarfile.BLOCKSIZE)


class BrokenTarError(Exception):
    """The archive is truncated or corrupt."""


@dataclass(frozen=True)
class Member:
    """One member, except folders."""

    name: str
    offset: int
    n_bytes: int
    is_outside: bool
    """Whether the member is a link or a device, or its name leaves the archive."""
    json: bytes | None
    """Content of a JSON member of at most 16 MiB, None for other members."""

    @property
    def suffix(self) -> str:
        return PurePosixPath(self.name).suffix.lower()


def read_members(file: IO[bytes]) -> Iterator[Member]:
    """Members of an uncompressed tar, in order; the bytes of recordings are not read.

    fsspec reads files ahead in blocks of megabytes, so a remote tar does not need a request for
    each member.

    Raises:
        BrokenTarError: the archive is broken; the error comes after the last complete member.
    """
    try:
        with tarfile.open(fileobj=file, mode="r:") as tar:
            member = tar.next()
            while member is not None:
                found = _member(tar, member)
                member = tar.next()  # raises if the member before it is incomplete
                if found is not None:
                    yield found
            file.seek(tar.offset)
            if file.read(len(_END)) != _END:  # tarfile takes any invalid header as the end
                raise BrokenTarError(f"no header and no end of the archive at byte {tar.offset}")
    except (tarfile.TarError, ValueError) as error:
        raise BrokenTarError(f"breaks off: {first_line(error)}") from None


def _member(tar: tarfile.TarFile, member: tarfile.TarInfo) -> Member | None:
    path = PurePosixPath(member.name)
    is_climbing = path.is_absolute() or ".." in path.parts
    if member.isdir() and not is_climbing:
        return None
    is_outside = is_climbing or not member.isreg() or member.issparse()
    is_json = path.suffix.lower() == ".json" and member.size <= _MAX_JSON_BYTES
    file = tar.extractfile(member) if is_json and not is_outside else None
    return Member(
        path.as_posix(),
        member.offset_data,
        member.size,
        is_outside,
        file.read() if file else None,
    )
