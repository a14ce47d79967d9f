"""RANKS of two models on the same queries → differences of their scores, with intervals."""

from collections.abc import Sequence

import pandas as pd

from flap.core.errors import UserError
from flap.retrieval.bootstrap import intervals
from flap.retrieval.scores import query_scores


def compare(
    ranks: pd.DataFrame,
    others: pd.DataFrame,
    recall_at: Sequence[int],
    *,
    resamples: int,
    seed: int,
) -> pd.DataFrame:
    """Paired differences of scores: query by query, so that hard queries cancel out.

    Args:
        ranks, others: RANKS of two models on one benchmark.
        recall_at: each k of R@k.
        resamples, seed: of the bootstrap, see `intervals`.

    Returns:
        One row per direction and score, with columns score, other, difference, and low and high:
        the difference's 95 % interval over clips.

    Raises:
        UserError: the two tables have different queries or numbers of candidates.
    """
    keys, found = ["direction", "query_id"], []
    ranks, others = (each.sort_values(keys, ignore_index=True) for each in (ranks, others))
    same = [*keys, "candidates"]
    if not ranks[same].equals(others[same]):
        raise UserError(
            "compare: the two tables have different queries or numbers of candidates; score both "
            "models on the same clips"
        )
    for direction, rows in ranks.groupby("direction"):
        own = query_scores(rows, recall_at)
        other = query_scores(others.loc[rows.index], recall_at)
        spans = intervals(own - other, rows["clip_id"], resamples=resamples, seed=seed)
        table = pd.DataFrame({"score": own.mean(), "other": other.mean()})
        table["difference"] = table["score"] - table["other"]
        spans_table = pd.DataFrame(spans).T
        found.append(table.join(spans_table).assign(direction=direction))
    return pd.concat(found).rename_axis("name").reset_index().set_index(["direction", "name"])
