"""CAPTIONS → examples of original and enriched captions, as in Table 1 of the paper.

The choice needs only numeric columns and row numbers; texts are read only for the chosen rows.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

import numpy as np
import pandas as pd

from flap.core.schemas import CAPTIONS
from flap.core.shards import read_table
from flap.report.config import ReportConfig

MAX_CHARACTERS = 300
RULE = (
    "Score: tag coverage + faithfulness \N{MINUS SIGN} invented share. Ties are ordered by the "
    "original caption's tag coverage, lowest first, and then by clip. The score compares captions "
    "with tags, not with the sound: it does not notice a wrong tag."
)
TITLES = {
    "best": "Best: kept captions with the highest scores",
    "worst": "Worst: answers with the lowest scores, kept or rejected",
    "random": "Random: any rows",
}
COLUMNS = ["clip_id", "kept", "n_words", "tag_coverage", "original_coverage", "faithfulness"]
COLUMNS += ["invented"]
_MEASURES = ["attempt", "n_words", "n_tokens", "tag_coverage", "original_coverage", "faithfulness"]
_MEASURES += ["invented", "invented_sounds"]
_TEXTS = ["clip_id", "original", "enriched", "reason"]
_ORDER = ["score", "original_coverage", "clip_id"]
_CONTROLS = dict.fromkeys([*range(32), *range(127, 160)], " ")

RowAddress = tuple[str, int]  # shard's path, row in it


@dataclass(frozen=True)
class Example:
    """One row of CAPTIONS with its texts cut to length."""

    clip_id: str
    original: str
    enriched: str
    reason: str
    tags: list[str]
    kept: bool
    attempt: int
    n_words: int
    n_tokens: int
    tag_coverage: float
    original_coverage: float
    faithfulness: float
    invented: float
    invented_sounds: int


class ExampleChoice:
    """Chooses the rows to show while shards are added in order; it holds only a few rows."""

    def __init__(self, rows: int, config: ReportConfig) -> None:
        """
        Args:
            rows: number of rows in all shards together.
        """
        best, worst, random = (len(part) for part in np.array_split(range(config.samples), 3))
        self._n_best, self._n_worst = best, worst
        generator = np.random.default_rng(config.seed)
        self._random = np.sort(generator.choice(rows, min(random, rows), replace=False))
        self._seen = 0
        self._best, self._worst = pd.DataFrame(), pd.DataFrame()
        self.random: list[RowAddress] = []

    def add(self, path: Path, rows: pd.DataFrame) -> None:
        """Add a shard: all its rows, with the columns `COLUMNS`."""
        end = self._seen + len(rows)
        drawn = self._random[(self._random >= self._seen) & (self._random < end)]
        self.random += [(str(path), int(row) - self._seen) for row in drawn]
        self._seen = end
        answered = _scored(path, rows)
        self._best = _first(self._best, answered[answered["kept"]], self._n_best, best=True)
        self._worst = _first(self._worst, answered, self._n_worst, best=False)

    @property
    def best(self) -> list[RowAddress]:
        return _addresses(self._best)

    @property
    def worst(self) -> list[RowAddress]:
        return _addresses(self._worst)


def _scored(path: Path, rows: pd.DataFrame) -> pd.DataFrame:
    """The rows with an answer, with the columns of `_ORDER` and the rows' addresses."""
    found = rows[["clip_id", "kept", "original_coverage"]].assign(
        score=rows["tag_coverage"].astype(float) + rows["faithfulness"] - rows["invented"],
        path=str(path),
        row=np.arange(len(rows)),
    )
    return found[rows["n_words"] > 0]


def _first(held: pd.DataFrame, more: pd.DataFrame, size: int, *, best: bool) -> pd.DataFrame:
    """The `size` best or worst rows of both tables."""
    joined = more if held.empty else pd.concat([held, more])
    return joined.sort_values(_ORDER, ascending=[not best, True, True]).head(size)


def _addresses(rows: pd.DataFrame) -> list[RowAddress]:
    return [] if rows.empty else list(zip(rows["path"], map(int, rows["row"]), strict=True))


def read_examples(addresses: Sequence[RowAddress]) -> list[Example]:
    """The rows at these addresses, in this order; one shard is in memory at a time."""
    found: dict[RowAddress, Example] = {}
    columns = [*_TEXTS, "tags", "kept", *_MEASURES]
    for path, group in groupby(sorted(set(addresses)), key=lambda address: address[0]):
        wanted = [row for _, row in group]
        rows = read_table(Path(path), CAPTIONS, columns).take(wanted).to_pylist()
        for row, values in zip(wanted, rows, strict=True):
            texts = {name: one_line(values[name]) for name in _TEXTS}
            tags = [one_line(tag) for tag in values["tags"]]
            found[path, row] = Example(**values | texts | {"tags": tags})
    return [found[address] for address in addresses]


def one_line(text: str) -> str:
    """`text` as one line of at most `MAX_CHARACTERS`, without control characters."""
    line = " ".join(text[: 2 * MAX_CHARACTERS].translate(_CONTROLS).split())
    is_uncut = len(line) <= MAX_CHARACTERS and len(text) <= 2 * MAX_CHARACTERS
    return line if is_uncut else line[: MAX_CHARACTERS - 1] + "…"
