"""Splits of a corpus: the names that corpora use, and an assignment where they name none."""

import hashlib
from collections.abc import Sequence

from flap.sources.config import SPLITS, DrawnSplits

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


def canonical_split(name: str | None) -> str:
    """train, val or test for a corpus's name of it, "" for anything else."""
    return SPLIT_NAMES.get(name.casefold(), "") if name else ""


def draw_splits(keys: Sequence[Sequence[str]], drawn: DrawnSplits) -> list[str]:
    """A split for each clip; clips that share a key, even by others, are together.

    Keys are what must not be in two splits: captions, or the upload that a clip was cut from.
    The split is a hash of the seed and of the group's first key in alphabetical order, so new
    clips with new keys move no old clip. Fractions hold for groups on average.
    """
    leaders = _leaders([[_normal(key) for key in own] for own in keys])
    chosen = {leader: _draw(leader, drawn) for leader in set(leaders)}
    return [chosen[leader] for leader in leaders]


def _normal(key: str) -> str:
    """Captions that differ by case, blanks or the final full stop are the same."""
    return " ".join(key.casefold().split()).rstrip(".!")


def _leaders(keys: Sequence[Sequence[str]]) -> list[str]:
    """The least key of each clip's group, by union-find over keys."""
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


def _draw(leader: str, drawn: DrawnSplits) -> str:
    digest = hashlib.sha256(f"{drawn.seed}\n{leader}".encode()).digest()
    point, edge = int.from_bytes(digest[:8], "big") / 2**64, 0.0
    for split in SPLITS:
        edge += getattr(drawn.fractions, split)
        if point < edge:
            return split
    return SPLITS[-1]
