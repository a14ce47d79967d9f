"""What a model already answered: key → answer, in one SQLite file that survives kills.

The key covers everything that shapes an answer, so entries never go stale. Each answer is
committed as it arrives; a rerun asks only for what is missing. Several processes on one
machine may share the file.
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
_MOST_VARIABLES = 30_000  # of one statement; SQLite's limit is 32,766


@dataclass(frozen=True)
class Answer:
    """A model's answer, why it ended ("stop" or "length"), and what it cost."""

    text: str
    finish: str
    prompt_tokens: int = 0  # 0: the server does not say
    answer_tokens: int = 0
    seconds: float = 0.0  # from sending the request to its answer


@dataclass(frozen=True)
class Spent:
    """Sums over a data set's answers, whatever prompt they were given to."""

    requests: int
    seconds: float


def request_key(shape: Any) -> bytes:
    """A hash of everything that shapes an answer: weights, prompt, sampling, attempt."""
    return hashlib.sha256(json.dumps(shape, sort_keys=True).encode()).digest()[:_KEY_BYTES]


class AnswerCache:
    """The file as a mapping; use as a context manager."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            self._db = sqlite3.connect(path, timeout=60.0, isolation_level=None)
            # Write-ahead: an answer is one append, and a kill of the process loses none.
            self._db.execute("PRAGMA journal_mode=WAL")
            self._db.execute("PRAGMA synchronous=NORMAL")
            self._db.execute(_TABLE)
        except sqlite3.Error as error:
            raise UserError(f"{path}: not a usable cache ({error}); delete it") from error

    def get(self, key: bytes) -> Answer | None:
        return self.get_many([key]).get(key)

    def get_many(self, keys: Sequence[bytes]) -> dict[bytes, Answer]:
        """Those of the keys that are known, with their answers."""
        found: dict[bytes, Answer] = {}
        for start in range(0, len(keys), _MOST_VARIABLES):
            some = keys[start : start + _MOST_VARIABLES]
            query = (
                "SELECT key, text, finish, prompt_tokens, answer_tokens, seconds FROM answers "
                f"WHERE key IN ({','.join('?' * len(some))})"
            )
            found |= {key: Answer(*rest) for key, *rest in self._db.execute(query, some)}
        return found

    def put(self, key: bytes, answer: Answer, dataset: str) -> None:
        self._db.execute(
            "INSERT OR IGNORE INTO answers VALUES (?, ?, ?, ?, ?, ?, ?)",
            (key, dataset, *astuple(answer)),
        )

    def spent(self, dataset: str) -> Spent:
        query = "SELECT count(*), coalesce(sum(seconds), 0) FROM answers WHERE dataset = ?"
        return Spent(*self._db.execute(query, (dataset,)).fetchone())

    def __enter__(self) -> "AnswerCache":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._db.close()
