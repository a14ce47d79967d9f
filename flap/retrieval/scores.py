"""RANKS → scores: R@k, mAP@10 and mean rank, with chance levels and intervals.

A score is the mean of a column of `query_scores` over queries. Shares are in 0..1.
"""

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from flap.retrieval.bootstrap import intervals

DIRECTIONS = ("text_to_audio", "audio_to_text", "audio_to_class")
_PRECISION_AT = 10


def scores(
    ranks: pd.DataFrame, recall_at: Sequence[int], *, resamples: int, seed: int
) -> dict[str, Any]:
    """Metrics of one benchmark from its RANKS.

    Args:
        recall_at: each k of R@k.
        resamples, seed: of the bootstrap over clips, see `intervals`.

    Returns:
        clips, clips_sha256 (of the sorted clip ids), and for each direction its scores, with
        `chance` and `interval` by score.
    """
    clip_ids = sorted(set(ranks["clip_id"]))
    result: dict[str, Any] = {
        "clips": len(clip_ids),
        "clips_sha256": hashlib.sha256("\n".join(clip_ids).encode()).hexdigest(),
    }
    for direction, found in ranks.groupby("direction"):
        each = query_scores(found, recall_at)
        result[str(direction)] = {
            "queries": len(found),
            "candidates": int(found["candidates"].iloc[0]),
            **each.mean().to_dict(),
            "median_rank": float(found["rank"].median()),
            "tied_queries": int((found["ties"] > 0).sum()),
            "chance": _chance(found, recall_at),
            "interval": intervals(each, found["clip_id"], resamples=resamples, seed=seed),
        }
    return result


def query_scores(ranks: pd.DataFrame, recall_at: Sequence[int]) -> pd.DataFrame:
    """One row for each query of RANKS, one column for each score, indexed by query_id.

    `R@k`: 1 if the best right answer is among the first k.
    `mAP@10`: average precision over the first ten answers, divided by the number of right answers,
    at most ten (WavCaps' convention).
    `mAP@10_ls_clap`: the same as LS-CLAP computes it, with positions in the order of the captions
    instead of sorted; it can exceed 1.
    `mean_rank`: the rank of the best right answer.
    """
    recalls = {f"R@{k}": (ranks["rank"] <= k).to_numpy(float) for k in recall_at}
    positions_P = np.concatenate(ranks["positions"].to_list()).astype(np.int64)
    counts_Q = ranks["positions"].map(len).to_numpy()
    query_P = np.repeat(np.arange(len(ranks)), counts_Q)
    sorted_P = positions_P[np.lexsort((positions_P, query_P))]
    found = recalls | {
        "mAP@10": _precisions(sorted_P, query_P, len(ranks)) / counts_Q.clip(max=_PRECISION_AT),
        "mAP@10_ls_clap": _precisions(positions_P, query_P, len(ranks)) / counts_Q,
        "mean_rank": ranks["rank"].to_numpy(float),
    }
    return pd.DataFrame(found, index=pd.Index(ranks["query_id"]))


def _precisions(positions_P: np.ndarray, query_P: np.ndarray, queries: int) -> np.ndarray:
    """(Q,) sum over each query's positions up to ten of i / position, for the i-th of them."""
    near_P = positions_P <= _PRECISION_AT
    positions_N, query_N = positions_P[near_P], query_P[near_P]
    first_N = np.searchsorted(query_N, query_N)
    number_N = np.arange(len(query_N)) - first_N + 1
    return np.bincount(query_N, number_N / positions_N, minlength=queries)


def _chance(ranks: pd.DataFrame, recall_at: Sequence[int]) -> dict[str, float]:
    right_Q, candidates = ranks["positions"].map(len).to_numpy(), int(ranks["candidates"].iloc[0])
    return {f"R@{k}": chance_recall(right_Q, candidates, k) for k in recall_at}


def chance_recall(right_Q: np.ndarray, n_candidates: int, k: int) -> float:
    """Expected R@k of a random order: the probability of a right answer among the first k.

    Args:
        right_Q: number of right answers to each query.
    """
    drawn = np.arange(min(k, n_candidates))
    # No right answer among k draws without replacement: Π (n - right - i) / (n - i).
    misses_QK = (n_candidates - right_Q[:, None] - drawn).clip(min=0) / (n_candidates - drawn)
    return float((1 - misses_QK.prod(axis=1)).mean())


def describe(benchmark: str, found: Mapping[str, Any]) -> str:
    """The scores of a benchmark as lines to print, each with interval and chance.

    Args:
        found: `scores` of the benchmark, with the key `clips_in_split`.
    """
    state = "labelled and present" if "audio_to_class" in found else "present"
    present = f"{found['clips']} of {found['clips_in_split']} clips {state}"
    lines = [f"{benchmark}: {present}"]
    for direction in (name for name in DIRECTIONS if name in found):
        shares, chance = found[direction], found[direction]["chance"]
        each = [
            f"{name} {shares[name]:.1%} ({_span(shares['interval'][name])}, "
            f"chance {chance[name]:.1%})"
            for name in chance
        ]
        among = f"{shares['queries']} queries, {shares['candidates']} answers"
        lines.append(f"  {direction} ({among}): {', '.join(each)}")
    return "\n".join(lines)


def _span(interval: Mapping[str, float]) -> str:
    return f"{interval['low']:.1%} to {interval['high']:.1%}"
