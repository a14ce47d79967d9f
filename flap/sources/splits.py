"""Splits of a corpus: the names that corpora use, and drawn splits where a corpus names none."""

import hashlib
from collections.abc import Sequence

from flap.core.schemas import SPLITS, Split
from flap.core.text import normalised_caption
from flap.sources.config import DrawnSplits

SPLIT_NAMES: dict[str, Split] = {
    "train": "train",
    "training": "train",
    "development": "train",  # Clotho and DCASE train on "development" …
    "val": "val",
    "valid": "val",
    "validation": "val",
    "dev": "val",  # … but "dev" elsewhere means validation
    "test": "test",
    "testing": "test",
    "eval": "test",
    "evaluation": "test",
}


def canonical_split(name: str | None) -> str:
    """train, val or test for a corpus's name of a split; "" for an unknown name or None."""
    return SPLIT_NAMES.get(name.casefold(), "") if name else ""


def draw_splits(keys: Sequence[Sequence[str]], drawn: DrawnSplits) -> list[Split]:
    """A split for each clip; clips that share a key, directly or via other clips, stay together.

    The split is a hash of the seed and of the group's alphabetically first key, so new clips with
    new keys do not change the split of old clips. The groups, not the clips, follow the fractions.

    Args:
        keys: one or more for each clip: its captions, or the upload that it was cut from. Keys
            are compared by `normalised_caption`.
    """
    leaders = _leaders([[normalised_caption(key) for key in clip_keys] for clip_keys in keys])
    chosen = {leader: _draw(leader, drawn) for leader in set(leaders)}
    return [chosen[leader] for leader in leaders]


def _leaders(keys: Sequence[Sequence[str]]) -> list[str]:
    """The alphabetically first key of each clip's group, by union-find over keys."""
    parent: dict[str, str] = {}

    def find(key: str) -> str:
        parent.setdefault(key, key)
        while parent[key] != key:
            parent[key] = parent[parent[key]]
            key = parent[key]
        return key

    for clip_keys in keys:
        for key in clip_keys:
            low, high = sorted((find(clip_keys[0]), find(key)))
            parent[high] = low
    return [find(clip_keys[0]) for clip_keys in keys]


def _draw(leader: str, drawn: DrawnSplits) -> Split:
    digest = hashlib.sha256(f"{drawn.seed}\n{leader}".encode()).digest()
    point, edge = int.from_bytes(digest[:8], "big") / 2**64, 0.0
    for split in SPLITS:
        edge += getattr(drawn.fractions, split)
        if point < edge:
            return split
    return SPLITS[-1]
