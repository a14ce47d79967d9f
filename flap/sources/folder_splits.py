"""Splits of a folder: the names corpora use, and an assignment for corpora without any."""

import hashlib
from collections.abc import Sequence

from flap.sources.config import SPLITS, SplitFractions

SPLIT_NAMES = {
    "train": "train",
    "training": "train",
    "development": "train",  # Clotho and DCASE train on "development" …
    "val": "val",
    "valid": "val",
    "validation": "val",
    "dev": "val",  # … while the short form elsewhere means validation
    "test": "test",
    "testing": "test",
    "eval": "test",
    "evaluation": "test",
}


def split_by_caption(
    captions: Sequence[Sequence[str]], seed: int, fractions: SplitFractions
) -> list[str]:
    """A split for each clip; clips that share a caption, even by others, are together.

    The split is a hash of the seed and of the group's first caption in alphabetical order,
    so new clips with new captions move no old clip. Fractions hold for groups on average.
    """
    keys = [[_key(caption) for caption in own] for own in captions]
    leaders = _leaders(keys)
    chosen = {leader: _draw(seed, leader, fractions) for leader in set(leaders)}
    return [chosen[leader] for leader in leaders]


def _key(caption: str) -> str:
    """Captions that differ by case, blanks or the final full stop are the same."""
    return " ".join(caption.casefold().split()).rstrip(".!")


def _leaders(keys: Sequence[Sequence[str]]) -> list[str]:
    """The least caption of each clip's group, by union-find over captions."""
    parent: dict[str, str] = {}

    def find(key: str) -> str:
        parent.setdefault(key, key)
        while parent[key] != key:
            parent[key] = parent[parent[key]]
            key = parent[key]
        return key

    for own in keys:
        for key in own:
            low, high = sorted((find(own[0]), find(key)))
            parent[high] = low
    return [find(own[0]) for own in keys]


def _draw(seed: int, leader: str, fractions: SplitFractions) -> str:
    digest = hashlib.sha256(f"{seed}\n{leader}".encode()).digest()
    point, edge = int.from_bytes(digest[:8], "big") / 2**64, 0.0
    for split in SPLITS:
        edge += getattr(fractions, split)
        if point < edge:
            return split
    return SPLITS[-1]
