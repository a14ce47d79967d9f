"""Two models on the same queries: by how much one is better, and how sure that is."""

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
    """Differences of scores, query by query, so that what is hard for both cancels out.

    Args:
        ranks, others: RANKS of two models on one benchmark.

    Returns:
        One row a direction and score: score, other, difference, and the 95 % interval of the
        difference as low and high; 0 outside of it is a difference that other clips of the kind
        would hardly undo.

    Raises:
        UserError: the two have not the same queries among as many candidates.
    """
    keys, found = ["direction", "query_id"], []
    ranks, others = (each.sort_values(keys, ignore_index=True) for each in (ranks, others))
    same = [*keys, "candidates"]
    if not ranks[same].equals(others[same]):
        raise UserError(
            "compare: the two have other queries or other candidates; score both models on one "
            "benchmark, with the same clips present"
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
