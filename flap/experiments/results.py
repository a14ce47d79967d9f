"""RANKS of the runs → the scores of a row, as means over its seeds.

Intervals are over clips: they measure how much the choice of clips affects a score.
`Estimate.seed_std` measures how much the seed does.
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
class Estimate:
    """A score or a difference of scores: its mean over queries, with its uncertainty."""

    mean: float
    interval: Interval  # 95 %, over clips
    seed_std: float | None  # standard deviation over seeds; None with one seed


@dataclass(frozen=True)
class RowScores:
    """Scores of one row on one benchmark in one direction."""

    queries: pd.DataFrame  # means over seeds; one line per query_id, one column per score
    clip_ids: pd.Series  # the clip of each query
    seeds: pd.DataFrame  # means over queries; one line per seed
    config: RetrievalConfig

    def estimate(self, name: str) -> Estimate:
        """The score of this name."""
        seed_std = float(self.seeds[name].std()) if len(self.seeds) > 1 else None
        mean = float(self.queries[name].mean())
        return Estimate(mean, self._interval(self.queries, name), seed_std)

    def difference(self, other: "RowScores", name: str) -> Estimate:
        """The paired difference to another row: this score minus the other, query by query.

        Raises:
            UserError: the rows have different queries.
        """
        difference = self.queries - other.queries
        if difference.isna().any(axis=None):
            raise UserError("two rows were scored on different clips; run `dvc repro` again")
        mean = float(difference[name].mean())
        return Estimate(mean, self._interval(difference, name), None)

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
    """The scores of a row over all its seeds.

    Args:
        ranks: folder of the RANKS folders `<row>-<seed>-<benchmark>`.

    Raises:
        UserError: RANKS are missing, or the seeds were scored on different clips.
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
        raise UserError("seeds of a row were scored on different clips; run `dvc repro` again")
    return sum(others, first) / len(scores)
