"""CAPTIONS → a summary of a dataset's enriched captions.

Shards are read one at a time, without texts; texts are read only for the rows that the page
shows. So memory does not grow with the number of rows.
"""

from collections import Counter
from dataclasses import dataclass, fields
from pathlib import Path

import pandas as pd

from flap.core.schemas import CAPTIONS
from flap.core.shards import count_rows, read_table, shard_paths
from flap.report.config import ReportConfig
from flap.report.distribution import Distribution
from flap.report.examples import COLUMNS, TITLES, Example, ExampleChoice, one_line, read_examples
from flap.report.metrics import read_json

FAILED = "request_failed"  # reject reason of rows without an answer
MAX_ERRORS = 3
_ANSWERED = ("n_words", "tag_coverage", "original_coverage", "faithfulness", "invented")
_WRITER_COLUMNS = ["model", "revision", "prompt_id", "sampling"]


@dataclass(frozen=True)
class Cost:
    """The cost of all requests for a table's answers, over all runs."""

    requests: int
    prompt_tokens: int
    answer_tokens: int


@dataclass(frozen=True)
class CaptionSummary:
    """Summary of the enriched captions of one dataset."""

    rows: int
    kept: int
    reasons: list[tuple[str, int]]  # reject reasons and their rows, most frequent first
    retried: int  # rows with more than one request
    retried_kept: int
    errors: list[str]  # the first few distinct errors of failed requests
    distributions: dict[str, Distribution]  # by column, over rows with an answer
    writers: list[str]
    examples: dict[str, list[Example]]  # by title
    cost: Cost | None

    @property
    def failed(self) -> int:
        return dict(self.reasons).get(FAILED, 0)


def read_captions(folder: Path, metrics: Path, config: ReportConfig) -> CaptionSummary | None:
    """Summarise what the stage `captions` wrote for one dataset; None if there are no rows.

    Args:
        folder: of CAPTIONS.
        metrics: the stage's metrics file.
    """
    n_rows = count_rows(folder)
    if not n_rows:
        return None
    tally, choice, writers = _Tally(), ExampleChoice(n_rows, config), set[str]()
    for path in shard_paths(folder):
        rows = read_table(path, CAPTIONS, _Tally.COLUMNS).to_pandas()
        tally.add(path, rows)
        choice.add(path, rows)
        writers |= _writers(path)
    places = {"best": choice.best, "worst": choice.worst, "random": choice.random}
    return CaptionSummary(
        rows=n_rows,
        kept=tally.kept,
        reasons=sorted(tally.reasons.items(), key=lambda item: (-item[1], item[0])),
        retried=tally.retried,
        retried_kept=tally.retried_kept,
        errors=tally.errors,
        distributions=tally.distributions,
        writers=sorted(writers),
        examples={TITLES[name]: read_examples(found) for name, found in places.items() if found},
        cost=_read_cost(metrics),
    )


class _Tally:
    """Counts and distributions, accumulated shard by shard."""

    COLUMNS = tuple(dict.fromkeys([*COLUMNS, *_ANSWERED, "n_tokens", "requests", "reason"]))

    def __init__(self) -> None:
        self.kept = self.retried = self.retried_kept = 0
        self.reasons: Counter[str] = Counter()
        self.errors: list[str] = []
        self.distributions: dict[str, Distribution] = {}

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
            parts = [Distribution.from_column(column.to_numpy())]
            if name in self.distributions:
                parts.insert(0, self.distributions[name])
            self.distributions[name] = Distribution.merged(parts)


def _errors(path: Path) -> list[str]:
    rows = read_table(path, CAPTIONS, ["reason", "error"]).to_pandas()
    texts = rows.loc[rows["reason"] == FAILED, "error"]
    return [one_line(text) for text in texts.unique()[:MAX_ERRORS] if text]


def _writers(path: Path) -> set[str]:
    rows = read_table(path, CAPTIONS, _WRITER_COLUMNS)
    distinct = rows.group_by(_WRITER_COLUMNS).aggregate([]).to_pylist()
    return {
        one_line("{model} ({revision}), prompt {prompt_id}, sampling {sampling}".format(**row))
        for row in distinct
    }


def _read_cost(metrics: Path) -> Cost | None:
    found = read_json(metrics)
    return None if found is None else Cost(**{each.name: found[each.name] for each in fields(Cost)})
