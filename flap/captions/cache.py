"""The model's completions so far: one SQLite file that maps request keys to completions.

The key covers everything that determines a completion, so an entry never becomes stale. Each
completion is committed when it arrives: a killed run loses none, and a rerun sends only the
requests that have no completion yet. Several processes on one machine may share the file.
"""

import hashlib
import json
import sqlite3
from collections.abc import Sequence
from dataclasses import astuple, dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

from flap.core.errors import UserError

_TABLE = """
CREATE TABLE IF NOT EXISTS answers (
    key BLOB PRIMARY KEY, dataset TEXT, text TEXT, finish TEXT,
    prompt_tokens INTEGER, answer_tokens INTEGER, seconds REAL
) WITHOUT ROWID
"""
_KEY_BYTES = 16
_MAX_VARIABLES = 30_000  # in one statement; SQLite's limit is 32,766


@dataclass(frozen=True)
class Completion:
    """A model's answer to one request, in the order of the cache's columns."""

    text: str
    finish_reason: str  # "stop", or "length" if max_tokens cut the text off
    prompt_tokens: int = 0  # 0: the server does not report them
    answer_tokens: int = 0
    seconds: float = 0.0  # from sending the request to receiving the answer, with retries


@dataclass(frozen=True)
class Usage:
    """Sums over all cached completions of a dataset, over all prompts and models."""

    requests: int
    seconds: float


def request_key(content: Any) -> bytes:
    """Hash of everything that determines a completion: weights, prompt, sampling, attempt."""
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).digest()[:_KEY_BYTES]


class CompletionCache:
    """The SQLite file as a mapping; a context manager.

    Raises:
        UserError: the file is not a usable SQLite database.
    """

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            self._db = sqlite3.connect(path, timeout=60.0, isolation_level=None)
            # Write-ahead log: each insert is one append, and a killed process loses none.
            self._db.execute("PRAGMA journal_mode=WAL")
            self._db.execute("PRAGMA synchronous=NORMAL")
            self._db.execute(_TABLE)
        except sqlite3.Error as error:
            raise UserError(f"{path}: not a usable cache ({error}); delete it") from error

    def get(self, key: bytes) -> Completion | None:
        return self.get_many([key]).get(key)

    def get_many(self, keys: Sequence[bytes]) -> dict[bytes, Completion]:
        """The completions of those keys that are in the cache."""
        found: dict[bytes, Completion] = {}
        for start in range(0, len(keys), _MAX_VARIABLES):
            part = keys[start : start + _MAX_VARIABLES]
            query = (
                "SELECT key, text, finish, prompt_tokens, answer_tokens, seconds FROM answers "
                f"WHERE key IN ({','.join('?' * len(part))})"
            )
            found |= {key: Completion(*values) for key, *values in self._db.execute(query, part)}
        return found

    def put(self, key: bytes, completion: Completion, dataset: str) -> None:
        self._db.execute(
            "INSERT OR IGNORE INTO answers VALUES (?, ?, ?, ?, ?, ?, ?)",
            (key, dataset, *astuple(completion)),
        )

    def usage(self, dataset: str) -> Usage:
        query = "SELECT count(*), coalesce(sum(seconds), 0) FROM answers WHERE dataset = ?"
        return Usage(*self._db.execute(query, (dataset,)).fetchone())

    def __enter__(self) -> "CompletionCache":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._db.close()
