"""What an adapter yields → rows of CLIPS and REJECTS; the rules that hold for every corpus.

An adapter knows its corpus's format and nothing else: it yields an `Item` for each recording
that the corpus describes, in the corpus's own order, so that what is added later comes last and
the shards before it stay as they are. Here names become clip ids, labels AudioSet classes and
splits ours; what cannot be used becomes a reject with its reason.
"""

import hashlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

from tqdm import tqdm

from flap.audioset import find_class
from flap.errors import UserError
from flap.schemas import CLIPS
from flap.shards import REJECTS_FOLDER, Row, atomic_path, shard_name, write_rejects, write_rows
from flap.sources.config import SPLITS, CorpusDataset, DrawnSplits
from flap.sources.files import CorpusFiles
from flap.sources.splits import SPLIT_NAMES, draw_splits

RECORDINGS_FOLDER = "_recordings"


@dataclass(frozen=True, kw_only=True)
class Item:
    """One recording as its corpus describes it; nothing is checked yet."""

    where: str
    """What to look at if it is refused, such as "captions.csv, line 6"."""
    recording: str
    """Path in the corpus's folder, "/" between its parts; no two items have the same."""
    name: str
    """Short form of `recording`, for the clip's id; it need not be unique."""
    captions: Sequence[str] = ()
    labels: Sequence[str] = ()
    split: str | None = None
    """As the corpus calls it; None: to be drawn."""
    together: Sequence[str] = ()
    """What must not be in two splits, if not the captions and the origin."""
    duration_s: float | None = None
    licence: str = ""
    source: str = ""
    origin: str = ""
    place: "Place | None" = None
    """Where the bytes are, if not in the file `recording`."""


@dataclass(frozen=True)
class Place:
    """A file, or some bytes of it, as CLIPS names them."""

    uri: str
    offset: int | None = None
    n_bytes: int | None = None


@dataclass(frozen=True)
class Refused:
    """A recording that the adapter itself has to refuse."""

    where: str
    recording: str
    reason: str
    detail: str


@dataclass(frozen=True)
class Intake:
    """What an adapter can leave beside its items."""

    work: Path
    """Folder in the making, which will be published as `out`."""
    out: Path
    notes: list[str] = field(default_factory=list)
    """What the user should know of the corpus, one sentence each."""

    def keep(self, data: bytes, suffix: str) -> Place:
        """Store a recording that lies in no file of its own, once, below the shards' folder.

        Its name is its hash, so that a run which goes on after a kill takes no stale one.
        """
        digest = hashlib.sha256(data).hexdigest()
        path = Path(RECORDINGS_FOLDER) / digest[:2] / f"{digest}{suffix}"
        if not (self.work / path).exists():
            with atomic_path(self.work / path) as temporary:
                temporary.write_bytes(data)
        return Place((self.out / path).as_posix())


Adapter = Callable[[CorpusFiles, Any, Intake], Iterator[Item | Refused]]
"""The corpus's files, its section of params.yaml, and where to leave the rest → what it holds."""


@dataclass
class Corpus:
    """The whole corpus: rows of CLIPS, rows of REJECTS, and what the user should know."""

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
    described: Iterable[Item | Refused],
    drawn: DrawnSplits | None = None,
) -> Corpus:
    """Sort what an adapter yields into clips and rejects.

    Raises:
        UserError: no recording is usable.
    """
    corpus, kept, seen = Corpus(dataset), list[Item](), set[str]()
    everything = list(tqdm(described, desc=f"sources {dataset}", unit="clip", leave=False))
    names = _clip_names(everything)
    for entry in everything:
        recording = _normal(entry.recording)
        refused = _refuse(entry, recording, seen, files, config)
        if refused is None:
            assert isinstance(entry, Item)
            kept.append(entry)
            seen.add(recording)
        else:
            name = names.get(recording, recording) or entry.where
            corpus.rejects.append(_reject(f"{dataset}/{name}", entry.where, *refused))
    if not kept:
        raise UserError(
            f"{config.path}: no usable row among {len(everything)}; {_reasons(corpus.rejects)}"
        )
    splits = _splits(kept, drawn)
    corpus.clips = [
        _clip(dataset, names[_normal(item.recording)], item, split, files)
        for item, split in zip(kept, splits, strict=True)
    ]
    corpus.notes = [*_presence(everything, corpus), *_notes(corpus)]
    return corpus


def write_corpus(corpus: Corpus, config: CorpusDataset, shard_clips: int, folder: Path) -> None:
    """Write all shards into `folder`; all rejects stand with the first one."""
    provenance = {"stage": "sources", "dataset": corpus.dataset, **config.model_dump()}
    write_rejects(folder / REJECTS_FOLDER / shard_name(0), corpus.rejects, provenance)
    for index, start in enumerate(range(0, len(corpus.clips), shard_clips)):
        rows = corpus.clips[start : start + shard_clips]
        write_rows(folder / shard_name(index), rows, CLIPS, provenance)


def _refuse(
    entry: Item | Refused,
    recording: str,
    seen: set[str],
    files: CorpusFiles,
    config: CorpusDataset,
) -> tuple[str, str] | None:
    """Reason and detail why an entry makes no clip, None if it does."""
    if isinstance(entry, Refused):
        return entry.reason, entry.detail
    return _refuse_recording(entry, recording, seen, files) or _refuse_words(entry, config)


def _refuse_recording(
    item: Item, recording: str, seen: set[str], files: CorpusFiles
) -> tuple[str, str] | None:
    if not item.recording:
        return "missing", "names no recording"
    try:
        recording.encode()
        if files.leaves(item.recording):
            return "outside", f"'{recording}' is not inside the corpus's folder"
        if recording in seen:
            return "duplicate", f"'{recording}' again; give its further captions in the first row"
        if item.place is None and not files.has(recording):
            return "missing", f"no file '{recording}' in the corpus's folder"
    except (OSError, ValueError) as error:  # a name that no file system takes, or no UTF-8
        return "missing", f"'{recording[:80]}': {error}"
    return None


def _refuse_words(item: Item, config: CorpusDataset) -> tuple[str, str] | None:
    if config.captions == "required" and not _captions(item):
        return "no_caption", "every caption is empty"
    if item.split is not None and item.split.casefold() not in SPLIT_NAMES:
        return "bad_split", f"'{item.split}' is none of {', '.join(sorted(SPLIT_NAMES))}"
    return None


def _normal(recording: str) -> str:
    return PurePosixPath(recording).as_posix() if recording else ""


def _clip_names(entries: Sequence[Item | Refused]) -> dict[str, str]:
    """Each recording's short name, or the recording itself where two would share that."""
    names = {_normal(item.recording): item.name for item in entries if isinstance(item, Item)}
    times = Counter(names.values())
    return {recording: name if times[name] == 1 else recording for recording, name in names.items()}


def _splits(items: Sequence[Item], drawn: DrawnSplits | None) -> list[str]:
    """Each item's split, drawn for those whose corpus names none."""
    free = [item for item in items if item.split is None]
    assert drawn is not None or not free, "an adapter left splits open that its config cannot draw"
    chosen = iter(draw_splits([_keys(item) for item in free], drawn) if drawn and free else ())
    return [next(chosen) if item.split is None else _split(item.split) for item in items]


def _split(name: str) -> str:
    return SPLIT_NAMES[name.casefold()]


def _keys(item: Item) -> Sequence[str]:
    together = item.together or [*_captions(item), *([item.origin] if item.origin else [])]
    return together or [item.recording]


def _captions(item: Item) -> list[str]:
    """The item's captions, each once, blanks as one."""
    found = (" ".join(_unicode(caption).split()) for caption in item.captions)
    return list(dict.fromkeys(caption for caption in found if caption))


def _clip(dataset: str, name: str, item: Item, split: str, files: CorpusFiles) -> Row:
    labels = (_unicode(label).strip() for label in item.labels)
    place = item.place or Place(files.uri(item.recording))
    return {
        "clip_id": f"{dataset}/{name}",
        "dataset": dataset,
        "split": split,
        "uri": place.uri,
        "offset": place.offset,
        "n_bytes": place.n_bytes,
        "captions": _captions(item),
        "labels": list(dict.fromkeys(find_class(label) or label for label in labels if label)),
        "duration_s": item.duration_s,
        "licence": _unicode(item.licence),
        "source": _unicode(item.source),
        "origin": item.origin,
    }


def _unicode(text: str) -> str:
    """Text that a table can hold: JSON and file names can have halves of characters."""
    return text.encode(errors="backslashreplace").decode()


def _reject(clip_id: str, where: str, reason: str, detail: str) -> Row:
    return {
        "clip_id": _unicode(clip_id),
        "stage": "sources",
        "reason": reason,
        "detail": _unicode(f"{where}: {detail}"),
    }


def _reasons(rejects: Sequence[Row]) -> str:
    counts = Counter(row["reason"] for row in rejects)
    first = f"; first: {rejects[0]['detail']}" if rejects else ""
    return ", ".join(f"{n} {reason}" for reason, n in counts.items()) + first


def _presence(entries: Sequence[Item | Refused], corpus: Corpus) -> Iterator[str]:
    """How many of each split's clips are here, where the corpus names its splits."""
    named = (entry.split for entry in entries if isinstance(entry, Item) and entry.split)
    wanted = Counter(_split(name) for name in named if name.casefold() in SPLIT_NAMES)
    present = Counter(row["split"] for row in corpus.clips)
    for split in SPLITS:
        if wanted[split]:
            yield f"{split}: {present[split]} of {wanted[split]} clips present"


def _notes(corpus: Corpus) -> Iterator[str]:
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
