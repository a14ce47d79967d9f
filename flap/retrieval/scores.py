"""RANKS → the numbers people compare: R@k, median and mean rank, with chance beside them."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

DIRECTIONS = ("text_to_audio", "audio_to_text")


def scores(ranks: pd.DataFrame, recall_at: Sequence[int]) -> dict[str, Any]:
    """Metrics of one benchmark from its RANKS alone, shares in 0..1.

    The candidates of one direction are the queries of the other, and a caption's query_id
    is its clip's followed by #<position>, so RANKS holds all that chance depends on.
    """
    captions = ranks.loc[ranks["direction"] == "text_to_audio", "query_id"]
    own_C = captions.str.rsplit("#", n=1).str[0].value_counts().to_numpy()
    result: dict[str, Any] = {"clips": len(own_C), "captions": len(captions)}
    for direction in DIRECTIONS:
        found = ranks[ranks["direction"] == direction]
        right_Q, n_candidates = (
            (np.ones(len(captions), dtype=int), len(own_C))
            if direction == "text_to_audio"
            else (own_C, len(captions))
        )
        result[direction] = {
            **{f"R@{k}": float((found["rank"] <= k).mean()) for k in recall_at},
            "median_rank": float(found["rank"].median()),
            "mean_rank": float(found["rank"].mean()),
            "tied_queries": int((found["ties"] > 0).sum()),
            "chance": {f"R@{k}": chance_recall(right_Q, n_candidates, k) for k in recall_at},
        }
    return result


def chance_recall(right_Q: np.ndarray, n_candidates: int, k: int) -> float:
    """R@k expected of a random order: P(one of the right answers is among the first k).

    Args:
        right_Q: number of right answers of each query.
    """
    drawn = np.arange(min(k, n_candidates))
    # No right answer among k draws without replacement: Π (n - right - i) / (n - i).
    misses_QK = (n_candidates - right_Q[:, None] - drawn).clip(min=0) / (n_candidates - drawn)
    return float((1 - misses_QK.prod(axis=1)).mean())


def describe(benchmark: str, found: Mapping[str, Any]) -> str:
    """The scores of a benchmark as lines to print, chance beside each."""
    present = f"{found['clips']} of {found['clips_in_split']} clips present"
    lines = [f"retrieval {benchmark}: {present}, {found['captions']} captions"]
    for direction in DIRECTIONS:
        shares, chance = found[direction], found[direction]["chance"]
        each = (f"{name} {shares[name]:.1%} (chance {chance[name]:.1%})" for name in chance)
        lines.append(f"  {direction}: {', '.join(each)}")
    return "\n".join(lines)
