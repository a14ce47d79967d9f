"""What a model already answered: key → answer, in one SQLite file that survives kills.

The key covers everything that shapes an answer, so entries never go stale. Each answer is
committed as it arrives; a rerun asks only for what is missing. Several processes on one
machine may share the file.
"""

import hashlib
import json
import sqlite3
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

from flap.errors import UserError


@dataclass(frozen=True)
class Answer:
    """A model's answer and why it ended: "stop" or "length"."""

    text: str
    finish: str


def request_key(**shape: Any) -> str:
    """SHA-256 over everything that shapes an answer: weights, prompt, sampling."""
    return hashlib.sha256(json.dumps(shape, sort_keys=True).encode()).hexdigest()


class AnswerCache:
    """The file as a mapping; use as a context manager."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            self._db = sqlite3.connect(path, timeout=60.0, isolation_level=None)
            # Write-ahead: an answer is one append, and a kill of the process loses none.
            self._db.execute("PRAGMA journal_mode=WAL")
            self._db.execute("PRAGMA synchronous=NORMAL")
            self._db.execute(
                "CREATE TABLE IF NOT EXISTS answers (key TEXT PRIMARY KEY, text TEXT, finish TEXT)"
            )
        except sqlite3.Error as error:
            raise UserError(f"{path}: not a usable cache ({error}); delete it") from error

    def get(self, key: str) -> Answer | None:
        query = "SELECT text, finish FROM answers WHERE key = ?"
        row = self._db.execute(query, (key,)).fetchone()
        return Answer(*row) if row else None

    def put(self, key: str, answer: Answer) -> None:
        self._db.execute(
            "INSERT OR IGNORE INTO answers VALUES (?, ?, ?)", (key, answer.text, answer.finish)
        )

    def __enter__(self) -> "AnswerCache":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._db.close()
