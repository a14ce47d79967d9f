"""Confidence intervals of scores by a cluster bootstrap over clips."""

import numpy as np
import pandas as pd

_CONFIDENCE = 0.95


def intervals(
    query_scores: pd.DataFrame, clip_ids: "pd.Series[str]", *, resamples: int, seed: int
) -> dict[str, dict[str, float]]:
    """95 % percentile intervals of the columns' means, {column: {low, high}}.

    Queries of one clip are not independent, so whole clips are drawn with replacement, each with
    all its queries (a cluster bootstrap). The candidates are not resampled.

    Args:
        query_scores: one row per query, as `flap.retrieval.scores.query_scores` gives them.
        clip_ids: the clip of each query.
        resamples: number of draws.
    """
    clip_Q, distinct = pd.factorize(clip_ids)
    clips = len(distinct)
    values_QF = query_scores.to_numpy(float)
    sums_CF = np.stack([np.bincount(clip_Q, v, minlength=clips) for v in values_QF.T], axis=1)
    queries_C = np.bincount(clip_Q, minlength=clips)
    generator, means = np.random.default_rng(seed), []
    for _ in range(resamples):
        drawn_C = np.bincount(generator.integers(clips, size=clips), minlength=clips)
        means.append(drawn_C @ sums_CF / (drawn_C @ queries_C))
    tail = (1 - _CONFIDENCE) / 2
    low_F, high_F = np.quantile(means, [tail, 1 - tail], axis=0)
    return {
        str(name): {"low": float(low), "high": float(high)}
        for name, low, high in zip(query_scores.columns, low_F, high_F, strict=True)
    }
