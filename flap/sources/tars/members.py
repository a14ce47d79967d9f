"""A tar's members: where their bytes are, and what the small ones say."""

import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import IO

from flap.core.errors import first_line

_MAX_JSON_BYTES = 16 << 20
_END = bytes(tarfile.BLOCKSIZE)


class BrokenTarError(Exception):
    """The archive ends or turns to nonsense before its end."""


@dataclass(frozen=True)
class Member:
    """One member that is no folder."""

    name: str
    offset: int
    n_bytes: int
    is_outside: bool
    """Whether it is a link or a device, or its name leaves the archive."""
    json: bytes | None
    """Its content if it is JSON of a fair size."""

    @property
    def suffix(self) -> str:
        return PurePosixPath(self.name).suffix.lower()


def read_members(file: IO[bytes]) -> Iterator[Member]:
    """Members of an uncompressed tar, in order; recordings are skipped, not read.

    Files that fsspec opens are read ahead in blocks of megabytes, so that a remote tar costs no
    request a member.

    Raises:
        BrokenTarError: after the last member that is whole.
    """
    try:
        with tarfile.open(fileobj=file, mode="r:") as tar:
            member = tar.next()
            while member is not None:
                found = _member(tar, member)
                member = tar.next()  # fails if what was just found is not there to its end
                if found is not None:
                    yield found
            file.seek(tar.offset)
            if file.read(len(_END)) != _END:  # for tarfile, nonsense ends an archive
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
