"""A MELS shard in a store or in another folder, and retries of calls to a store."""

import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

import pyarrow as pa

from flap.core.errors import UserError, first_line
from flap.core.remote import file_version
from flap.core.shards import DISK_FULL

REMOTE_KEY = b"flap.source"
"""Key of a stub's Parquet metadata; its value is the `RemoteShard` as JSON."""
_ATTEMPTS, _PAUSE_SECONDS = 4, 0.5
_T = TypeVar("_T")


@dataclass(frozen=True)
class RemoteShard:
    """Where a shard lies, and its size and version when the stub was written."""

    url: str
    size: int  # bytes
    version: str  # the size and the store's hash or time of the file

    @classmethod
    def from_info(cls, fs: Any, url: str, info: dict[str, Any]) -> "RemoteShard":
        """
        Args:
            info: what `fs.info` or `fs.ls` says of the file. Of its keys fsspec fixes only `name`
                and `size`; hash and time have another key in each file system.
        """
        return cls(url, int(info["size"]), file_version(fs, info))


def remote_shard(schema: pa.Schema) -> RemoteShard | None:
    """The shard that a stub with this schema stands for; None if the file is a shard itself."""
    text = (schema.metadata or {}).get(REMOTE_KEY)
    return RemoteShard(**json.loads(text)) if text else None


def with_retries(url: str, call: Callable[[], _T]) -> _T:
    """Return `call()`; call again, with growing pauses, when the store fails.

    Raises:
        UserError: the file is missing, the local disk is full, or all attempts failed; the
            message names the URL or the environment variable.
    """
    for attempt in range(_ATTEMPTS):
        try:
            return call()
        except UserError:
            raise
        except FileNotFoundError:
            raise UserError(
                f"{url}: no such file or folder; check FLAP_MELS and that data/audio was copied "
                "there"
            ) from None
        except Exception as error:  # every store's client has its own exception classes
            if isinstance(error, OSError) and error.errno in DISK_FULL:
                raise UserError(
                    "FLAP_MELS_CACHE: no space left on the disk; free some space, or lower "
                    "FLAP_MELS_CACHE_GIB"
                ) from None
            failure = first_line(error)
            if attempt + 1 < _ATTEMPTS:
                time.sleep(_PAUSE_SECONDS * 2**attempt)
    raise UserError(f"{url}: cannot be read, tried {_ATTEMPTS} times ({failure})")
