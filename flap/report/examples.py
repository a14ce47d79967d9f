"""CAPTIONS → the rows that the page shows of a dataset, as Table 1 of the paper does.

Which ones is decided from numbers and row numbers alone; texts are read of those that are shown.
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
    "Score: tag coverage + faithfulness \N{MINUS SIGN} invented share. Equal scores: first the "
    "caption whose original named fewer of the tags, then by clip. The score knows the tags, not "
    "the sound: a misheard tag counts like any other."
)
TITLES = {
    "best": "Best: the highest scores of those kept",
    "worst": "Worst: the lowest scores of those answered",
    "random": "Random: of all",
}
COLUMNS = ["clip_id", "kept", "n_words", "tag_coverage", "original_coverage", "faithfulness"]
COLUMNS += ["invented"]
_MEASURES = ["attempt", "n_words", "n_tokens", "tag_coverage", "original_coverage", "faithfulness"]
_MEASURES += ["invented", "invented_sounds"]
_TEXTS = ["clip_id", "original", "enriched", "reason"]
_ORDER = ["score", "original_coverage", "clip_id"]
_CONTROLS = dict.fromkeys([*range(32), *range(127, 160)], " ")

Place = tuple[str, int]  # shard's path, row in it


@dataclass(frozen=True)
class Example:
    """One row of CAPTIONS as it is shown: texts are cut, everything else is the table's."""

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


class Choice:
    """Which rows are shown; the shards are added in order, and a few rows of each are held."""

    def __init__(self, rows: int, config: ReportConfig) -> None:
        """`rows`: of all shards together."""
        best, worst, random = (len(part) for part in np.array_split(range(config.samples), 3))
        self._n_best, self._n_worst = best, worst
        generator = np.random.default_rng(config.seed)
        self._random = np.sort(generator.choice(rows, min(random, rows), replace=False))
        self._seen = 0
        self._best, self._worst = pd.DataFrame(), pd.DataFrame()
        self.random: list[Place] = []

    def add(self, path: Path, rows: pd.DataFrame) -> None:
        """A shard's columns `COLUMNS`, all its rows."""
        end = self._seen + len(rows)
        here = self._random[(self._random >= self._seen) & (self._random < end)]
        self.random += [(str(path), int(row) - self._seen) for row in here]
        self._seen = end
        answered = _scored(path, rows)
        self._best = _first(self._best, answered[answered["kept"]], self._n_best, best=True)
        self._worst = _first(self._worst, answered, self._n_worst, best=False)

    @property
    def best(self) -> list[Place]:
        return _places(self._best)

    @property
    def worst(self) -> list[Place]:
        return _places(self._worst)


def _scored(path: Path, rows: pd.DataFrame) -> pd.DataFrame:
    """The rows with an answer, and what they are ranked by."""
    found = rows[["clip_id", "kept", "original_coverage"]].assign(
        score=rows["tag_coverage"].astype(float) + rows["faithfulness"] - rows["invented"],
        path=str(path),
        row=np.arange(len(rows)),
    )
    return found[rows["n_words"] > 0]


def _first(held: pd.DataFrame, more: pd.DataFrame, size: int, *, best: bool) -> pd.DataFrame:
    joined = more if held.empty else pd.concat([held, more])
    return joined.sort_values(_ORDER, ascending=[not best, True, True]).head(size)


def _places(rows: pd.DataFrame) -> list[Place]:
    return [] if rows.empty else list(zip(rows["path"], map(int, rows["row"]), strict=True))


def read_examples(places: Sequence[Place]) -> list[Example]:
    """The rows at `places`, in their order; texts of one shard are in memory at a time."""
    found: dict[Place, Example] = {}
    columns = [*_TEXTS, "tags", "kept", *_MEASURES]
    for path, group in groupby(sorted(set(places)), key=lambda place: place[0]):
        wanted = [row for _, row in group]
        rows = read_table(Path(path), CAPTIONS, columns).take(wanted).to_pylist()
        for row, values in zip(wanted, rows, strict=True):
            texts = {name: shown(values[name]) for name in _TEXTS}
            tags = [shown(tag) for tag in values["tags"]]
            found[path, row] = Example(**values | texts | {"tags": tags})
    return [found[place] for place in places]


def shown(text: str) -> str:
    """`text` in one line of at most `MAX_CHARACTERS`, without control characters."""
    line = " ".join(text[: 2 * MAX_CHARACTERS].translate(_CONTROLS).split())
    is_whole = len(line) <= MAX_CHARACTERS and len(text) <= 2 * MAX_CHARACTERS
    return line if is_whole else line[: MAX_CHARACTERS - 1] + "…"
