"""Adapter `folder`: a folder of recordings and one CSV that describes them.

`path` is the folder, with `captions.csv` or a single other CSV in it, or the CSV itself.
Columns (others are ignored, and named once):

| column | |
|---|---|
| file_name | path of the recording, from the CSV's folder; required |
| caption, or caption_1 … caption_5 | empty ones are skipped; at least one is required |
| labels | separated by ";"; what means an AudioSet class is written as its display name |
| split | see `SPLIT_NAMES`; without the column `split_by_caption` assigns splits |
| licence (or license), source, duration_s | kept as they are |

Every line of the CSV ends as a row of CLIPS or as one of REJECTS.
"""

from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from tqdm import tqdm

from flap.audioset import find_class
from flap.errors import UserError
from flap.schemas import CLIPS
from flap.shards import REJECTS_FOLDER, Row, shard_name, write_rejects, write_rows
from flap.sources.config import SPLITS, FolderDataset
from flap.sources.folder_csv import Line, read_lines
from flap.sources.folder_splits import SPLIT_NAMES, split_by_caption

_CAPTION_COLUMNS = ("caption", *(f"caption_{i}" for i in range(1, 6)))
_KNOWN_COLUMNS = frozenset(
    {"file_name", "labels", "split", "licence", "license", "source", "duration_s"}
    | set(_CAPTION_COLUMNS)
)


@dataclass
class Corpus:
    """The whole CSV: rows of CLIPS by split, rows of REJECTS, and what the user should know."""

    dataset: str
    n_rows: int
    clips: list[Row] = field(default_factory=list)
    rejects: list[Row] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def captions_file(path: Path) -> Path:
    """The CSV in the folder `path`.

    Raises:
        UserError: there is none, or several and none is named captions.csv, or `path` is no
            folder. (DVC watches `path`; of a CSV alone it would not see a recording change.)
    """
    if not path.is_dir():
        raise UserError(f"{path}: no such folder; name the folder with the CSV and the recordings")
    if (path / "captions.csv").is_file():
        return path / "captions.csv"
    found = sorted(path.glob("*.csv"))
    if len(found) != 1:
        what = ", ".join(each.name for each in found) or "no CSV"
        raise UserError(f"{path}: expected captions.csv or a single CSV, found {what}")
    return found[0]


def read_corpus(dataset: str, config: FolderDataset) -> Corpus:
    """Sort the lines of the CSV into clips and rejects.

    Raises:
        UserError: the CSV is missing or malformed, a required column is missing, or no line
            is usable.
    """
    path = captions_file(Path(config.path))
    columns, lines = read_lines(path)
    _check_columns(path, columns)
    corpus = Corpus(dataset, len(lines))
    names = _clip_names(lines)
    kept: list[Line] = []
    seen: set[str] = set()
    for line in lines:
        refusal = _refuse(line, path.parent, seen, has_split="split" in columns)
        if refusal is None:
            kept.append(line)
            seen.add(_normal(line["file_name"]))
            continue
        row = names.get(_normal(line["file_name"]), line["file_name"])
        reason, detail = refusal
        corpus.rejects.append(_reject(f"{dataset}/{row}", reason, f"line {line.number}: {detail}"))
    if not kept:
        raise UserError(f"{path}: no usable row among {len(lines)}; {_summary(corpus.rejects)}")
    splits = _splits(kept, config, has_split="split" in columns)
    clips = [
        _clip(dataset, names[_normal(line["file_name"])], line, split, path.parent)
        for line, split in zip(kept, splits, strict=True)
    ]
    corpus.clips = sorted(clips, key=lambda row: SPLITS.index(row["split"]))
    corpus.notes = _notes(columns, corpus)
    return corpus


def write_corpus(corpus: Corpus, config: FolderDataset, shard_clips: int, folder: Path) -> None:
    """Write the shards that are not in `folder` yet; all rejects stand with the first one."""
    provenance = {"stage": "sources", "dataset": corpus.dataset, **config.model_dump()}
    if corpus.rejects:
        write_rejects(folder / REJECTS_FOLDER / shard_name(0), corpus.rejects, provenance)
    starts = range(0, len(corpus.clips), shard_clips)
    for index, start in enumerate(tqdm(starts, desc=f"sources {corpus.dataset}", unit="shard")):
        target = folder / shard_name(index)
        if not target.exists():
            write_rows(target, corpus.clips[start : start + shard_clips], CLIPS, provenance)


def _check_columns(path: Path, columns: list[str]) -> None:
    if "file_name" not in columns:
        raise UserError(
            f"{path}: column 'file_name' is missing; add it, with each recording's path from "
            f"the CSV's folder (columns found: {', '.join(columns)})"
        )
    if not set(_CAPTION_COLUMNS) & set(columns):
        raise UserError(
            f"{path}: column 'caption' is missing; add it, or caption_1 to caption_5 "
            f"(columns found: {', '.join(columns)})"
        )


Refusal = tuple[str, str] | None


def _refuse(line: Line, folder: Path, seen: set[str], *, has_split: bool) -> Refusal:
    """Reason and detail why a line makes no clip, None if it does."""
    return _refuse_recording(line["file_name"], folder, seen) or _refuse_words(line, has_split)


def _refuse_recording(name: str, folder: Path, seen: set[str]) -> Refusal:
    if not name:
        return "missing", "file_name is empty"
    try:
        return _refuse_path(name, folder, seen)
    except (OSError, ValueError) as error:  # a name that no file system takes
        return "missing", f"'{name[:80]}': {error}"


def _refuse_path(name: str, folder: Path, seen: set[str]) -> Refusal:
    if _leaves(folder, name):
        return "outside", f"'{name}' is not inside the CSV's folder"
    if _normal(name) in seen:
        return "duplicate", f"'{name}' again; give further captions as caption_2, caption_3, …"
    if not (folder / name).is_file():
        return "missing", f"no file '{name}' in the CSV's folder"
    return None


def _refuse_words(line: Line, has_split: bool) -> Refusal:
    if not _captions(line):
        return "no_caption", "every caption is empty"
    if has_split and line["split"].casefold() not in SPLIT_NAMES:
        return "bad_split", f"'{line['split']}' is none of {', '.join(sorted(SPLIT_NAMES))}"
    return None


def _leaves(folder: Path, name: str) -> bool:
    """Whether a path is absolute, climbs by "..", or leads out through a symbolic link."""
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts:
        return True
    return not (folder / name).resolve().is_relative_to(folder.resolve())


def _normal(name: str) -> str:
    return PurePosixPath(name).as_posix()


def _clip_names(lines: list[Line]) -> dict[str, str]:
    """Name of each recording without its extension, where that is unique in the CSV."""
    names = {_normal(line["file_name"]) for line in lines if line["file_name"]}
    stems = {name: PurePosixPath(name).with_suffix("").as_posix() for name in names}
    times = Counter(stems.values())
    return {name: stem if times[stem] == 1 else name for name, stem in stems.items()}


def _splits(lines: list[Line], config: FolderDataset, *, has_split: bool) -> list[str]:
    if has_split:
        return [SPLIT_NAMES[line["split"].casefold()] for line in lines]
    captions = [_captions(line) for line in lines]
    return split_by_caption(captions, config.seed, config.splits)


def _captions(line: Line) -> list[str]:
    """The line's captions, each once."""
    found = (" ".join(line[column].split()) for column in _CAPTION_COLUMNS)
    return list(dict.fromkeys(caption for caption in found if caption))


def _clip(dataset: str, name: str, line: Line, split: str, folder: Path) -> Row:
    raw = [label.strip() for label in line["labels"].split(";")]
    labels = [find_class(label) or label for label in raw if label]
    return {
        "clip_id": f"{dataset}/{name}",
        "dataset": dataset,
        "split": split,
        "uri": (folder / line["file_name"]).as_posix(),
        "captions": _captions(line),
        "labels": list(dict.fromkeys(labels)),
        "duration_s": _duration(line["duration_s"]),
        "licence": line["licence"] or line["license"],
        "source": line["source"],
    }


def _duration(text: str) -> float | None:
    """Seconds, None where the cell holds no positive number (the audio stage measures it)."""
    try:
        seconds = float(text)
    except ValueError:
        return None
    return seconds if 0 < seconds < float("inf") else None


def _reject(clip_id: str, reason: str, detail: str) -> Row:
    return {"clip_id": clip_id, "stage": "sources", "reason": reason, "detail": detail}


def _summary(rejects: list[Row]) -> str:
    counts = Counter(row["reason"] for row in rejects)
    first = f"; first: {rejects[0]['detail']}" if rejects else ""
    return ", ".join(f"{n} {reason}" for reason, n in counts.items()) + first


def _notes(columns: list[str], corpus: Corpus) -> list[str]:
    notes = []
    ignored = [column for column in columns if column not in _KNOWN_COLUMNS]
    if ignored:
        notes.append(f"ignored columns: {', '.join(ignored)}")
    unknown = Counter(
        label for row in corpus.clips for label in row["labels"] if find_class(label) is None
    )
    if unknown:
        examples = ", ".join(f"'{label}'" for label, _ in unknown.most_common(3))
        notes.append(
            f"{len(unknown)} labels are no AudioSet class and are kept as they are: {examples}"
            + (", …" if len(unknown) > 3 else "")
        )
    if corpus.rejects:
        notes.append(f"rejected: {_summary(corpus.rejects)}")
    return notes
