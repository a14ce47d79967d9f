"""RANKS of the runs → the scores of a row, its seeds taken together.

A query's score is the mean over the row's seeds. Intervals are over clips, so they say how far
other clips would move a row; how far another seed would is `RowScores.spread`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from flap.core.errors import UserError
from flap.core.schemas import RANKS
from flap.core.shards import read_folder
from flap.experiments.config import ExperimentsConfig, run_name
from flap.retrieval.bootstrap import intervals
from flap.retrieval.config import RetrievalConfig
from flap.retrieval.scores import query_scores

Interval = dict[str, float]  # low, high


@dataclass(frozen=True)
class Score:
    """A mean over queries, its 95 % interval over clips, its standard deviation over seeds."""

    mean: float
    interval: Interval
    spread: float | None  # None with one seed


@dataclass(frozen=True)
class RowScores:
    """One row on one benchmark in one direction: a query a line, a score a column."""

    queries: pd.DataFrame  # means over seeds, by query_id
    clip_ids: pd.Series
    seeds: pd.DataFrame  # means over queries, a seed a line
    config: RetrievalConfig

    def score(self, name: str) -> Score:
        spread = float(self.seeds[name].std()) if len(self.seeds) > 1 else None
        return Score(float(self.queries[name].mean()), self._interval(self.queries, name), spread)

    def beyond(self, other: "RowScores", name: str) -> Score:
        """The difference to another row, query by query."""
        difference = self.queries - other.queries
        if difference.isna().any(axis=None):
            raise UserError("two rows have been scored on other clips; run `dvc repro` again")
        mean = float(difference[name].mean())
        return Score(mean, self._interval(difference, name), None)

    def _interval(self, queries: pd.DataFrame, name: str) -> Interval:
        resamples, seed = self.config.resamples, self.config.seed
        return intervals(queries[[name]], self.clip_ids, resamples=resamples, seed=seed)[name]


def row_scores(
    ranks: Path,
    config: ExperimentsConfig,
    row: str,
    benchmark: str,
    direction: str,
    retrieval: RetrievalConfig,
) -> RowScores:
    """Of all seeds of a row.

    Args:
        ranks: folder of the runs' RANKS, `<row>-<seed>-<benchmark>`.
    """
    tables = []
    for seed in config.seeds_of(row):
        found = read_folder(ranks / f"{run_name(row, seed)}-{benchmark}", RANKS)
        tables.append(found[found["direction"] == direction])
    scores = [query_scores(table, retrieval.recall_at) for table in tables]
    queries = _mean(scores)
    clip_ids = pd.Series(tables[0]["clip_id"].to_numpy(), index=queries.index)
    return RowScores(queries, clip_ids, pd.DataFrame([s.mean() for s in scores]), retrieval)


def _mean(scores: Sequence[pd.DataFrame]) -> pd.DataFrame:
    first, *others = scores
    if not all(first.index.equals(other.index) for other in others):
        raise UserError("the seeds of a row have been scored on other clips; run `dvc repro` again")
    return sum(others, first) / len(scores)
