"""How far a score may be trusted: resampling the clips that it was measured on."""

import numpy as np
import pandas as pd

_COVERED = 0.95


def intervals(
    query_scores: pd.DataFrame, clip_ids: "pd.Series[str]", *, resamples: int, seed: int
) -> dict[str, dict[str, float]]:
    """95 % percentile intervals of the columns' means, {column: {low, high}}.

    Clips are drawn with replacement, and a clip's queries, which are no independent witnesses, come
    along with it (a cluster bootstrap); the candidates stay as they are.

    Args:
        query_scores: one row a query, as `flap.retrieval.scores.query_scores` gives them.
        clip_ids: each query's clip.
    """
    number_Q, distinct = pd.factorize(clip_ids)
    clips = len(distinct)
    values_QF = query_scores.to_numpy(float)
    sums_CF = np.stack([np.bincount(number_Q, v, minlength=clips) for v in values_QF.T], axis=1)
    queries_C = np.bincount(number_Q, minlength=clips)
    random, means = np.random.default_rng(seed), []
    for _ in range(resamples):
        times_C = np.bincount(random.integers(clips, size=clips), minlength=clips)
        means.append(times_C @ sums_CF / (times_C @ queries_C))
    tail = (1 - _COVERED) / 2
    low_F, high_F = np.quantile(means, [tail, 1 - tail], axis=0)
    return {
        str(name): {"low": float(low), "high": float(high)}
        for name, low, high in zip(query_scores.columns, low_F, high_F, strict=True)
    }
