"""A MELS shard in a store or another folder, and how a store is asked."""

import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

import pyarrow as pa

from flap.core.errors import UserError, first_line
from flap.core.remote import file_version
from flap.core.shards import DISK_FULL

SOURCE_KEY = b"flap.source"
_ATTEMPTS, _PAUSE_SECONDS = 4, 0.5
_T = TypeVar("_T")


@dataclass(frozen=True)
class Source:
    """A shard elsewhere, as it was when its head was made."""

    url: str
    size: int
    version: str  # size and what else its store tells it by

    @classmethod
    def of(cls, fs: Any, url: str, info: dict[str, Any]) -> "Source":
        """
        Args:
            info: what the file system says of it; fsspec leaves all but the size to each.
        """
        return cls(url, int(info["size"]), file_version(fs, info))


def source_of(schema: pa.Schema) -> Source | None:
    """Where the shard is whose head has this schema; None: it is a shard itself."""
    told = (schema.metadata or {}).get(SOURCE_KEY)
    return Source(**json.loads(told)) if told else None


def from_store(url: str, call: Callable[[], _T]) -> _T:
    """`call()`, tried again when the store fails.

    Raises:
        UserError: nothing is there, or the store failed each time; the message names the URL.
    """
    for attempt in range(_ATTEMPTS):
        try:
            return call()
        except UserError:
            raise
        except FileNotFoundError:
            raise UserError(
                f"{url}: is not there; see FLAP_MELS, and what was copied to it"
            ) from None
        except Exception as error:  # each client has its own classes
            if isinstance(error, OSError) and error.errno in DISK_FULL:
                raise UserError(
                    "FLAP_MELS_CACHE: no space left on the disk; free some, or lower "
                    "FLAP_MELS_CACHE_GIB"
                ) from None
            failure = first_line(error)
            if attempt + 1 < _ATTEMPTS:
                time.sleep(_PAUSE_SECONDS * 2**attempt)
    raise UserError(f"{url}: cannot be read, tried {_ATTEMPTS} times ({failure})")
