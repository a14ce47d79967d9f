"""Items of one recording → one item with all of their captions."""

from collections.abc import Sequence
from dataclasses import replace

from flap.sources.config import SPLITS
from flap.sources.item import Item, Refused
from flap.sources.splits import our_split


def joined(entries: Sequence[Item | Refused]) -> list[Item | Refused]:
    """Items of one recording as one, with all of their captions; the others are its duplicates.

    If they are in several splits, evaluation keeps it, and with it the captions given there.
    """
    alike: dict[str, list[int]] = {}
    for number, entry in enumerate(entries):
        if isinstance(entry, Item) and entry.recording:
            alike.setdefault(entry.same or entry.recording, []).append(number)
    found = list(entries)
    for numbers in alike.values():
        if len(numbers) > 1:
            items = [entry for number in numbers if isinstance(entry := entries[number], Item)]
            for number, entry in zip(numbers, _joined_group(items), strict=True):
                found[number] = entry
    return found


def _joined_group(items: Sequence[Item]) -> list[Item | Refused]:
    first = max(items, key=_rank)  # the earliest of the strongest split
    captions = [c for item in items if _rank(item) == _rank(first) for c in item.captions]
    whole = replace(first, captions=captions)
    return [whole if item is first else _duplicate(item, first) for item in items]


def _duplicate(item: Item, first: Item) -> Refused:
    if _rank(item) == _rank(first):
        what = f"its captions went to {first.where}"
    else:
        what = f"it is used for {first.split}, by {first.where}"
    detail = f"'{item.recording}' again; {what}"
    return Refused(item.where, item.recording, "duplicate", detail, item.split)


def _rank(item: Item) -> int:
    ours = our_split(item.split)
    return SPLITS.index(ours) if ours else -1
