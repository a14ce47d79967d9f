"""Embeddings → the position of every right answer to each query, by counting.

The protocol is LS-CLAP's: every caption is a query over all clips, and every clip is a query over
all captions. Nothing is sorted: an answer's position is 1 plus the number of answers before it.
A wrong answer with the same score as a right one is placed before it.

Scores are computed tile by tile, so memory does not grow with the score matrix.

Letters: Q queries, X candidates, P right answers of all queries together, R the largest number of
right answers of one query, E width of the shared embedding.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from scipy.sparse import csr_array
from torch.nn.functional import pad
from tqdm import tqdm

# Queries and candidates of a tile; on a CPU, a tile's scores fit in its cache.
_TILE = {"cpu": (256, 4096), "cuda": (4096, 16384)}
# Tiles are padded to a multiple of this width. Otherwise, on some CPUs, a matrix product rounds its
# last columns differently, and equal embeddings get different scores.
_COLUMNS = 64


@dataclass(frozen=True)
class QueryRanks:
    """Positions of the right answers to each query, 1 = first.

    `positions_P` lists the right answers query by query, and those of a query in the order of the
    candidates. `starts_Q` is the index of each query's first one in `positions_P`. `ties_Q` is the
    number of wrong answers with exactly the score of the query's best right answer.
    """

    positions_P: np.ndarray
    starts_Q: np.ndarray
    ties_Q: np.ndarray

    @property
    def rank_Q(self) -> np.ndarray:
        """Position of each query's best right answer."""
        return np.minimum.reduceat(self.positions_P, self.starts_Q)

    def positions(self) -> list[np.ndarray]:
        """One array of positions for each query."""
        return np.split(self.positions_P, self.starts_Q[1:])


def rank_right_answers(
    queries_QE: np.ndarray,
    candidates_XE: np.ndarray,
    right_QX: csr_array,
    device: torch.device | None = None,
    *,
    progress: bool = False,
) -> QueryRanks:
    """Rank by the inner product of embeddings.

    Args:
        queries_QE, candidates_XE: float32. Equal rows get equal scores, wherever they stand.
        right_QX: not 0 where the candidate is a right answer to the query.
        device: None is the CPU.

    Raises:
        ValueError: an embedding is not finite, or a query has no right answer.
    """
    if not (np.isfinite(queries_QE).all() and np.isfinite(candidates_XE).all()):
        raise ValueError("embeddings hold NaN or infinity")
    device = device or torch.device("cpu")
    height, width = _TILE[device.type]
    width = min(width, len(candidates_XE))
    blocks = range(0, len(queries_QE), height)
    parts = []
    for first in tqdm(blocks, "rank", unit="block", disable=not progress):
        block_QE = torch.from_numpy(queries_QE[first : first + height]).to(device)

        @lru_cache(maxsize=1)  # a single tile is computed once
        def tile(start: int, block_QE: torch.Tensor = block_QE) -> torch.Tensor:
            candidates = torch.from_numpy(candidates_XE[start : start + width]).to(device)
            padded_XE = pad(candidates, (0, 0, 0, -width % _COLUMNS))
            return (block_QE @ padded_XE.T)[:, :width]

        parts.append(_rank(tile, width, right_QX[first : first + height], device))
    positions, ties = (np.concatenate(each) for each in zip(*parts, strict=True))
    return QueryRanks(positions, right_QX.indptr[:-1], ties)


def rank_scores(scores_QX: np.ndarray, right_QX: csr_array) -> QueryRanks:
    """Rank by given scores, float32.

    Args and errors as of `rank_right_answers`.
    """
    if not np.isfinite(scores_QX).all():
        raise ValueError("scores hold NaN or infinity")
    scores = torch.from_numpy(scores_QX)
    positions, ties = _rank(lambda _: scores, len(scores.T), right_QX, scores.device)
    return QueryRanks(positions, right_QX.indptr[:-1], ties)


def _rank(
    tile: Callable[[int], torch.Tensor], width: int, right_QX: csr_array, device: torch.device
) -> tuple[np.ndarray, np.ndarray]:
    """Positions (P,) and ties (Q,) of a block of queries.

    Args:
        tile: start → the block's scores of candidates start…start+width-1. All tiles have one
            shape, because the rounding of a matrix product can depend on its shape.
        width: of a tile.
    """
    counts_Q = np.diff(right_QX.indptr)
    if not counts_Q.all():
        raise ValueError("a query has no right answer among the candidates")
    n_candidates = right_QX.shape[1]
    # The last tile starts earlier, so that it has the full width, but it counts only the candidates
    # begin…end-1 that no other tile counts.
    tiles = [
        (min(begin, n_candidates - width), begin, min(begin + width, n_candidates))
        for begin in range(0, n_candidates, width)
    ]
    is_answer_QR = np.arange(counts_Q.max()) < counts_Q[:, None]
    right_QR = np.full(is_answer_QR.shape, -1)
    right_QR[is_answer_QR] = right_QX.indices
    scores_QR = _scores_of_right(torch.from_numpy(right_QR).to(device), tile, tiles)

    best_Q1 = scores_QR.nan_to_num(-torch.inf).max(dim=1, keepdim=True).values
    before_QR = torch.zeros_like(scores_QR, dtype=torch.int64)
    equal_Q = torch.zeros(len(counts_Q), dtype=torch.int64, device=device)
    for start, begin, end in tiles:
        scores_QX = tile(start)[:, begin - start : end - start]
        for slot, score_Q in enumerate(scores_QR.T):
            before_QR[:, slot] += (scores_QX >= score_Q[:, None]).sum(1, dtype=torch.int32)
        equal_Q += (scores_QX == best_Q1).sum(1, dtype=torch.int32)

    # The counts include the answer itself and equal right answers; only the earlier ones of these
    # are before it.
    for slot, score_Q in enumerate(scores_QR.T):
        before_QR[:, slot] -= (scores_QR[:, slot:] == score_Q[:, None]).sum(1)
    positions_QR = 1 + before_QR
    ties_Q = equal_Q - (scores_QR == best_Q1).sum(1)
    return positions_QR.cpu().numpy()[is_answer_QR], ties_Q.cpu().numpy()


def _scores_of_right(
    right_QR: torch.Tensor,
    tile: Callable[[int], torch.Tensor],
    tiles: list[tuple[int, int, int]],
) -> torch.Tensor:
    """Scores (Q, R) of the right answers; NaN, which equals nothing, where a query has fewer."""
    scores_QR = torch.full(right_QR.shape, torch.nan, device=right_QR.device)
    for start, begin, end in tiles:
        in_tile_QR = (right_QR >= begin) & (right_QR < end)
        if in_tile_QR.any():
            rows, columns = in_tile_QR.nonzero()[:, 0], right_QR[in_tile_QR] - start
            scores_QR[in_tile_QR] = tile(start)[rows, columns]
    return scores_QR
