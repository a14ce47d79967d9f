"""Several records of one recording → one record with all captions; the others are duplicates."""

from collections.abc import Sequence
from dataclasses import replace

from flap.core.schemas import SPLITS
from flap.sources.record import Record, RejectedRecord
from flap.sources.splits import canonical_split


def merge_duplicates(entries: Sequence[Record | RejectedRecord]) -> list[Record | RejectedRecord]:
    """Keep one record for each recording and reject the others as duplicates; order stays.

    The captions of all records move to the first one. If the records name different splits, test
    wins over val and val over train, and only captions of the winning split are kept.
    """
    groups: dict[str, list[int]] = {}
    for number, entry in enumerate(entries):
        if isinstance(entry, Record) and entry.recording:
            groups.setdefault(entry.recording_key or entry.recording, []).append(number)
    merged = list(entries)
    for numbers in groups.values():
        if len(numbers) > 1:
            records = [entry for number in numbers if isinstance(entry := entries[number], Record)]
            for number, entry in zip(numbers, _merge_group(records), strict=True):
                merged[number] = entry
    return merged


def _merge_group(records: Sequence[Record]) -> list[Record | RejectedRecord]:
    kept = max(records, key=_rank)  # of equal ranks `max` returns the first
    captions = [c for record in records if _rank(record) == _rank(kept) for c in record.captions]
    merged = replace(kept, captions=captions)
    return [merged if record is kept else _duplicate(record, kept) for record in records]


def _duplicate(record: Record, kept: Record) -> RejectedRecord:
    if _rank(record) == _rank(kept):
        what = f"its captions were added to {kept.where}"
    else:
        what = f"{kept.where} has it in split {kept.split}"
    detail = f"'{record.recording}' again; {what}"
    return RejectedRecord(record.where, record.recording, "duplicate", detail, record.split)


def _rank(record: Record) -> int:
    """Position of the record's split in `SPLITS`, -1 if the split is to be drawn or unknown."""
    split = canonical_split(record.split)
    return SPLITS.index(split) if split else -1
