"""Ranks of queries → rows of RANKS."""

from collections.abc import Iterator, Sequence

from flap.core.shards import Row
from flap.retrieval.ranks import QueryRanks


def rank_rows(
    benchmark: str,
    direction: str,
    query_ids: Sequence[str],
    clip_ids: Sequence[str],
    ranks: QueryRanks,
    candidates: int,
) -> Iterator[Row]:
    """One row for each query.

    Args:
        clip_ids: for each query, the clip that it is or describes.
        candidates: number of candidates.
    """
    columns = (query_ids, clip_ids, ranks.rank_Q.tolist(), ranks.ties_Q.tolist())
    for query_id, clip_id, rank, ties, positions in zip(*columns, ranks.positions(), strict=True):
        yield {
            "benchmark": benchmark,
            "direction": direction,
            "query_id": query_id,
            "clip_id": clip_id,
            "rank": rank,
            "ties": ties,
            "positions": positions.tolist(),
            "candidates": candidates,
        }
