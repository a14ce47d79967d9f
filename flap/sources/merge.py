"""Records of one recording → one record with all of their captions."""

from collections.abc import Sequence
from dataclasses import replace

from flap.sources.config import SPLITS
from flap.sources.record import Record, RejectedRecord
from flap.sources.splits import canonical_split


def merge_duplicates(entries: Sequence[Record | RejectedRecord]) -> list[Record | RejectedRecord]:
    """Records of one recording as one, with all of their captions; the others are its duplicates.

    If they are in several splits, evaluation keeps it, and with it the captions given there.
    """
    alike: dict[str, list[int]] = {}
    for number, entry in enumerate(entries):
        if isinstance(entry, Record) and entry.recording:
            alike.setdefault(entry.recording_key or entry.recording, []).append(number)
    found = list(entries)
    for numbers in alike.values():
        if len(numbers) > 1:
            records = [entry for number in numbers if isinstance(entry := entries[number], Record)]
            for number, entry in zip(numbers, _joined_group(records), strict=True):
                found[number] = entry
    return found


def _joined_group(records: Sequence[Record]) -> list[Record | RejectedRecord]:
    first = max(records, key=_rank)  # the earliest of the strongest split
    captions = [c for record in records if _rank(record) == _rank(first) for c in record.captions]
    whole = replace(first, captions=captions)
    return [whole if record is first else _duplicate(record, first) for record in records]


def _duplicate(record: Record, first: Record) -> RejectedRecord:
    if _rank(record) == _rank(first):
        what = f"its captions went to {first.where}"
    else:
        what = f"it is used for {first.split}, by {first.where}"
    detail = f"'{record.recording}' again; {what}"
    return RejectedRecord(record.where, record.recording, "duplicate", detail, record.split)


def _rank(record: Record) -> int:
    ours = canonical_split(record.split)
    return SPLITS.index(ours) if ours else -1
