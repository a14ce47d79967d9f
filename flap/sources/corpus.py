"""An adapter's records → rows of CLIPS and REJECTS, by rules that hold for every corpus.

Names become clip ids, labels become AudioSet classes, and names of splits become train, val or
test. An unusable record becomes a reject with a reason.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath

from tqdm import tqdm

from flap.core.audioset import find_class
from flap.core.errors import UserError
from flap.core.schemas import CLIPS, SPLITS, is_absent_clip
from flap.core.shards import REJECTS_FOLDER, Row, shard_name, write_rejects, write_rows
from flap.sources.config import CorpusDataset, DrawnSplits
from flap.sources.files import CorpusFiles
from flap.sources.merge import merge_duplicates
from flap.sources.record import Location, Record, RejectedRecord
from flap.sources.splits import SPLIT_NAMES, canonical_split, draw_splits


@dataclass
class CorpusRows:
    """All rows of one corpus for CLIPS and REJECTS, and notes for the user."""

    dataset: str
    clips: list[Row] = field(default_factory=list)
    rejects: list[Row] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    @property
    def n_rows(self) -> int:
        return len(self.clips) + len(self.rejects)


def collect(
    dataset: str,
    config: CorpusDataset,
    files: CorpusFiles,
    adapter_entries: Iterable[Record | RejectedRecord],
) -> CorpusRows:
    """Sort the records of an adapter into clips and rejects.

    Raises:
        UserError: no recording is usable.
    """
    corpus, kept = CorpusRows(dataset), list[Record]()
    progress = tqdm(adapter_entries, desc=f"sources {dataset}", unit="clip", leave=False)
    entries = merge_duplicates([_with_normal_path(entry) for entry in progress])
    names = _clip_names([entry for entry in entries if isinstance(entry, Record)])
    for entry in entries:
        rejection = _rejection(entry, files, config)
        if rejection is None:
            assert isinstance(entry, Record)
            kept.append(entry)
        else:
            name = names.get(entry.recording, entry.recording) or entry.where
            corpus.rejects.append(_reject(f"{dataset}/{name}", entry, *rejection))
    if not kept:
        reasons = _reasons(corpus.rejects) or "the table has no rows"
        raise UserError(f"{config.path}: no usable row among {len(entries)}; {reasons}")
    splits = _splits(kept, config)
    corpus.clips = [
        _clip(dataset, names[record.recording], record, split, files)
        for record, split in zip(kept, splits, strict=True)
    ]
    if any(entry.split for entry in entries):
        corpus.notes += _presence(corpus)
    corpus.notes += _notes(corpus)
    return corpus


def write_corpus(corpus: CorpusRows, config: CorpusDataset, shard_clips: int, folder: Path) -> None:
    """Write all shards into `folder`, and all rejects as the rejects of the first shard."""
    for killed_runs_shard in folder.glob("shard-*.parquet"):
        killed_runs_shard.unlink()
    provenance = {"stage": "sources", "dataset": corpus.dataset, **config.model_dump()}
    write_rejects(folder / REJECTS_FOLDER / shard_name(0), corpus.rejects, provenance)
    for index, start in enumerate(range(0, len(corpus.clips), shard_clips)):
        rows = corpus.clips[start : start + shard_clips]
        write_rows(folder / shard_name(index), rows, CLIPS, provenance)


def _with_normal_path(entry: Record | RejectedRecord) -> Record | RejectedRecord:
    """The entry with "./a.wav" and "a//b.wav" written as "a.wav" and "a/b.wav"."""
    recording = PurePosixPath(entry.recording).as_posix() if entry.recording else ""
    return replace(entry, recording=recording)


def _rejection(
    entry: Record | RejectedRecord, files: CorpusFiles, config: CorpusDataset
) -> tuple[str, str] | None:
    """Reason and detail of an entry that becomes no clip, None for an entry that does."""
    if isinstance(entry, RejectedRecord):
        return entry.reason, entry.detail
    return _recording_rejection(entry, files) or _text_rejection(entry, config)


def _recording_rejection(record: Record, files: CorpusFiles) -> tuple[str, str] | None:
    if not record.recording:
        return "missing", "names no recording"
    try:
        record.recording.encode()  # raises UnicodeEncodeError for half of a character
        if files.escapes(record.recording):
            return "outside", f"'{record.recording}' is not inside the corpus's folder"
        if record.location is None and not files.exists(record.recording):
            return "missing", f"no file '{record.recording}' in the corpus's folder"
    except (OSError, ValueError) as error:  # the name is invalid for the file system, or no UTF-8
        return "missing", f"'{record.recording[:80]}': {error}"
    return None


def _text_rejection(record: Record, config: CorpusDataset) -> tuple[str, str] | None:
    if config.captions == "required" and not _captions(record):
        return "no_caption", "every caption is empty"
    if record.split is not None and not canonical_split(record.split):
        return "bad_split", f"'{record.split}' is none of {', '.join(sorted(SPLIT_NAMES))}"
    return None


def _clip_names(records: Sequence[Record]) -> dict[str, str]:
    """Recording → its short name, or the recording itself if the short name is not unique."""
    names = {record.recording: record.name for record in records}
    times = Counter(names.values())
    return {
        recording: name
        if times[name] == 1 and (name == recording or name not in names)
        else recording
        for recording, name in names.items()
    }


def _splits(records: Sequence[Record], config: CorpusDataset) -> list[str]:
    """Each record's split; splits are drawn for records whose corpus names none."""
    drawn = getattr(config, "splits", None)
    keys = [_split_keys(record) for record in records if record.split is None]
    draws = iter(draw_splits(keys, drawn) if isinstance(drawn, DrawnSplits) else ())
    return [
        next(draws) if record.split is None else canonical_split(record.split) for record in records
    ]


def _split_keys(record: Record) -> Sequence[str]:
    origin = [record.origin] if record.origin else []
    return record.split_keys or [*_captions(record), *origin] or [record.recording]


def _captions(record: Record) -> list[str]:
    """The record's distinct captions, with single blanks between words."""
    found = (" ".join(_unicode(caption).split()) for caption in record.captions)
    return list(dict.fromkeys(caption for caption in found if caption))


def _clip(dataset: str, name: str, record: Record, split: str, files: CorpusFiles) -> Row:
    labels = (_unicode(label).strip() for label in record.labels)
    location = record.location or Location(files.uri(record.recording))
    return {
        "clip_id": f"{dataset}/{name}",
        "dataset": dataset,
        "split": split,
        "uri": location.uri,
        "offset": location.offset,
        "n_bytes": location.n_bytes,
        "captions": _captions(record),
        "labels": list(dict.fromkeys(find_class(label) or label for label in labels if label)),
        "duration_s": record.duration_s,
        "licence": _unicode(record.licence),
        "source": _unicode(record.source),
        "origin": record.origin,
    }


def _unicode(text: str) -> str:
    """Text that a table can store: JSON and file names may contain halves of characters."""
    return text.encode(errors="backslashreplace").decode()


def _reject(clip_id: str, entry: Record | RejectedRecord, reason: str, detail: str) -> Row:
    return {
        "clip_id": _unicode(clip_id),
        "split": canonical_split(entry.split),
        "stage": "sources",
        "reason": reason,
        "detail": _unicode(f"{entry.where}: {detail}"),
    }


def _reasons(rejects: Sequence[Row]) -> str:
    counts = Counter(row["reason"] for row in rejects)
    first = f"; first: {rejects[0]['detail']}" if rejects else ""
    return ", ".join(f"{n} {reason}" for reason, n in counts.items()) + first


def _presence(corpus: CorpusRows) -> Iterator[str]:
    """For each split, how many of the clips that the corpus describes are present."""
    present = Counter(row["split"] for row in corpus.clips)
    absent = Counter(row["split"] for row in corpus.rejects if is_absent_clip(row["reason"]))
    for split in SPLITS:
        if n_clips := present[split] + absent[split]:
            yield f"{split}: {present[split]} of {n_clips} clips present"


def _notes(corpus: CorpusRows) -> Iterator[str]:
    labels = (label for row in corpus.clips for label in row["labels"])
    unknown = Counter(label for label in labels if find_class(label) is None)
    if unknown:
        examples = ", ".join(f"'{label}'" for label, _ in unknown.most_common(3))
        yield (
            f"{len(unknown)} labels are no AudioSet class and are kept as they are: {examples}"
            + (", …" if len(unknown) > 3 else "")
        )
    if corpus.rejects:
        yield f"rejected: {_reasons(corpus.rejects)}"
