"""Embeddings → the position of every right answer to each query, by counting.

The protocol of LS-CLAP: every caption is a query over all clips; every clip is a query over
all captions. Nothing is sorted: an answer's position is one more than the number of answers
placed before it. Of equal scores the wrong answers are placed first, so they earn nothing.

Scores are computed a tile at a time, so memory is flat in queries and candidates alike.

Letters: Q queries, X candidates, P right answers of all queries, R most of one query, E width of
the shared embedding.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from scipy.sparse import csr_array
from tqdm import tqdm

# Queries and candidates of a tile: on a CPU what its cache holds.
_TILE = {"cpu": (256, 4096), "cuda": (4096, 16384)}


@dataclass(frozen=True)
class Ranks:
    """Where the right answers stand, 1 = first.

    `positions_P` follows the right answers query by query, each query's in the order of the
    candidates; `starts_Q` are its first ones. `ties_Q` are the wrong answers with exactly the
    score of the query's best right one.
    """

    positions_P: np.ndarray
    starts_Q: np.ndarray
    ties_Q: np.ndarray

    @property
    def rank_Q(self) -> np.ndarray:
        """Of the best placed right answer."""
        return np.minimum.reduceat(self.positions_P, self.starts_Q)

    def positions(self) -> list[np.ndarray]:
        """One array a query."""
        return np.split(self.positions_P, self.starts_Q[1:])


def rank_right_answers(
    queries_QE: np.ndarray,
    candidates_XE: np.ndarray,
    right_QX: csr_array,
    device: torch.device | None = None,
    *,
    progress: bool = False,
) -> Ranks:
    """Rank by the inner product of embeddings.

    Args:
        queries_QE, candidates_XE: float32; equal rows have equal scores, whatever their places.
        right_QX: where it is not 0, the candidate is right for the query.
        device: where to compute; None is the CPU.

    Raises:
        ValueError: an embedding is not finite, or a query has no right answer.
    """
    if not (np.isfinite(queries_QE).all() and np.isfinite(candidates_XE).all()):
        raise ValueError("embeddings hold NaN or infinity")
    device = device or torch.device("cpu")
    queries, width = _TILE[device.type]
    width = min(width, len(candidates_XE))
    blocks = range(0, len(queries_QE), queries)
    parts = []
    for first in tqdm(blocks, "rank", unit="block", disable=not progress):
        block_QE = torch.from_numpy(queries_QE[first : first + queries]).to(device)

        @lru_cache(maxsize=1)  # where there is one tile, it is computed once
        def tile(start: int, block_QE: torch.Tensor = block_QE) -> torch.Tensor:
            candidates = torch.from_numpy(candidates_XE[start : start + width])
            return block_QE @ candidates.to(device).T

        parts.append(_rank(tile, width, right_QX[first : first + queries], device))
    positions, ties = (np.concatenate(each) for each in zip(*parts, strict=True))
    return Ranks(positions, right_QX.indptr[:-1], ties)


def rank_scores(scores_QX: np.ndarray, right_QX: csr_array) -> Ranks:
    """Rank by scores that are there already, float32; as `rank_right_answers` otherwise."""
    if not np.isfinite(scores_QX).all():
        raise ValueError("scores hold NaN or infinity")
    scores = torch.from_numpy(scores_QX)
    positions, ties = _rank(lambda _: scores, len(scores.T), right_QX, scores.device)
    return Ranks(positions, right_QX.indptr[:-1], ties)


def _rank(
    tile: Callable[[int], torch.Tensor], width: int, right_QX: csr_array, device: torch.device
) -> tuple[np.ndarray, np.ndarray]:
    """Positions (P,) and ties (Q,) of a block of queries.

    Args:
        tile: the block's scores of candidates start…start+width-1. All tiles have one shape, since
            another shape may round the same product another way.
    """
    counts_Q = np.diff(right_QX.indptr)
    if not counts_Q.all():
        raise ValueError("a query has no right answer among the candidates")
    n_candidates = right_QX.shape[1]
    # Each candidate is counted in one tile; the last tile begins earlier, to be as wide.
    tiles = [
        (min(begin, n_candidates - width), begin, min(begin + width, n_candidates))
        for begin in range(0, n_candidates, width)
    ]
    there_QR = np.arange(counts_Q.max()) < counts_Q[:, None]
    right_QR = np.full(there_QR.shape, -1)
    right_QR[there_QR] = right_QX.indices
    scores_QR = _scores_of(torch.from_numpy(right_QR).to(device), tile, tiles)

    best_Q1 = scores_QR.nan_to_num(-torch.inf).max(dim=1, keepdim=True).values
    before_QR = torch.zeros_like(scores_QR, dtype=torch.int64)
    equal_Q = torch.zeros(len(counts_Q), dtype=torch.int64, device=device)
    for start, begin, end in tiles:
        scores_QX = tile(start)[:, begin - start : end - start]
        for slot, score_Q in enumerate(scores_QR.T):
            before_QR[:, slot] += (scores_QX >= score_Q[:, None]).sum(1, dtype=torch.int32)
        equal_Q += (scores_QX == best_Q1).sum(1, dtype=torch.int32)

    # Counted were the answer itself and equal right ones, of which only earlier ones are before it.
    for slot, score_Q in enumerate(scores_QR.T):
        before_QR[:, slot] -= (scores_QR[:, slot:] == score_Q[:, None]).sum(1)
    positions_QR = 1 + before_QR
    ties_Q = equal_Q - (scores_QR == best_Q1).sum(1)
    return positions_QR.cpu().numpy()[there_QR], ties_Q.cpu().numpy()


def _scores_of(
    right_QR: torch.Tensor,
    tile: Callable[[int], torch.Tensor],
    tiles: list[tuple[int, int, int]],
) -> torch.Tensor:
    """(Q, R) scores of the right answers, NaN where a query has fewer: nothing equals that."""
    scores_QR = torch.full(right_QR.shape, torch.nan, device=right_QR.device)
    for start, begin, end in tiles:
        here_QR = (right_QR >= begin) & (right_QR < end)
        if here_QR.any():
            rows, columns = here_QR.nonzero()[:, 0], right_QR[here_QR] - start
            scores_QR[here_QR] = tile(start)[rows, columns]
    return scores_QR
