"""CAPTIONS → what the page says of a dataset's enriched captions.

One shard is in memory at a time, of it numbers, names and reasons; what is kept of it does not
grow with the rows.
"""

from collections import Counter
from dataclasses import dataclass, fields
from pathlib import Path

import pandas as pd

from flap.core.schemas import CAPTIONS
from flap.core.shards import count_rows, read_table, shard_paths
from flap.report.config import ReportConfig
from flap.report.examples import COLUMNS, TITLES, Choice, Example, read_examples, shown
from flap.report.metrics import read_json
from flap.report.spread import Spread

FAILED = "request_failed"  # the reason of rows without an answer
MAX_ERRORS = 3
_ANSWERED = ("n_words", "tag_coverage", "original_coverage", "faithfulness", "invented")
_WRITER = ["model", "revision", "prompt_id", "sampling"]


@dataclass(frozen=True)
class Spent:
    """What a table's answers cost, whenever they were asked."""

    requests: int
    prompt_tokens: int
    answer_tokens: int


@dataclass(frozen=True)
class CaptionsSummary:
    """The enriched captions of a dataset."""

    rows: int
    kept: int
    reasons: list[tuple[str, int]]  # of those not kept, most frequent first
    retried: int  # rows asked more than once
    retried_kept: int
    errors: list[str]  # the first few distinct ones of failed requests
    spreads: dict[str, Spread]  # by column; n_tokens of known ones, the rest of answered rows
    writers: list[str]
    examples: dict[str, list[Example]]  # by title
    spent: Spent | None

    @property
    def failed(self) -> int:
        return dict(self.reasons).get(FAILED, 0)


def read_captions(folder: Path, metrics: Path, config: ReportConfig) -> CaptionsSummary | None:
    """What stage `captions` left for one dataset; None if there are no rows.

    Args:
        metrics: the stage's JSON.
    """
    n_rows = count_rows(folder)
    if not n_rows:
        return None
    tally, choice, writers = _Tally(), Choice(n_rows, config), set[str]()
    for path in shard_paths(folder):
        rows = read_table(path, CAPTIONS, _Tally.COLUMNS).to_pandas()
        tally.add(path, rows)
        choice.add(path, rows)
        writers |= _writers(path)
    places = {"best": choice.best, "worst": choice.worst, "random": choice.random}
    return CaptionsSummary(
        rows=n_rows,
        kept=tally.kept,
        reasons=sorted(tally.reasons.items(), key=lambda item: (-item[1], item[0])),
        retried=tally.retried,
        retried_kept=tally.retried_kept,
        errors=tally.errors,
        spreads=tally.spreads,
        writers=sorted(writers),
        examples={TITLES[name]: read_examples(group) for name, group in places.items() if group},
        spent=_spent(metrics),
    )


class _Tally:
    """Counts over shards."""

    COLUMNS = tuple(dict.fromkeys([*COLUMNS, *_ANSWERED, "n_tokens", "requests", "reason"]))

    def __init__(self) -> None:
        self.kept = self.retried = self.retried_kept = 0
        self.reasons: Counter[str] = Counter()
        self.errors: list[str] = []
        self.spreads: dict[str, Spread] = {}

    def add(self, path: Path, rows: pd.DataFrame) -> None:
        retried = rows["requests"] > 1
        self.kept += int(rows["kept"].sum())
        self.retried += int(retried.sum())
        self.retried_kept += int((retried & rows["kept"]).sum())
        reasons = Counter(rows.loc[~rows["kept"], "reason"])
        self.reasons += reasons
        if reasons[FAILED] and len(self.errors) < MAX_ERRORS:
            self.errors = list(dict.fromkeys([*self.errors, *_errors(path)]))[:MAX_ERRORS]
        columns = {name: rows.loc[rows["n_words"] > 0, name] for name in _ANSWERED}
        columns["n_tokens"] = rows.loc[rows["n_tokens"] > 0, "n_tokens"]
        for name, column in columns.items():
            part = Spread.of(column.to_numpy())
            held = self.spreads.get(name)
            self.spreads[name] = part if held is None else Spread.joined([held, part])


def _errors(path: Path) -> list[str]:
    rows = read_table(path, CAPTIONS, ["reason", "error"]).to_pandas()
    texts = rows.loc[rows["reason"] == FAILED, "error"]
    return [shown(text) for text in texts.unique()[:MAX_ERRORS] if text]


def _writers(path: Path) -> set[str]:
    found = read_table(path, CAPTIONS, _WRITER).group_by(_WRITER).aggregate([]).to_pylist()
    return {
        shown("{model} ({revision}), prompt {prompt_id}, sampling {sampling}".format(**row))
        for row in found
    }


def _spent(metrics: Path) -> Spent | None:
    found = read_json(metrics)
    return (
        None if found is None else Spent(**{item.name: found[item.name] for item in fields(Spent)})
    )
