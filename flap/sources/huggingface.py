"""Adapter `huggingface`: anything that the library `datasets` loads.

    path: google/some-dataset       a name on the hub, also as hf://datasets/google/some-dataset
    path: corpora/mine              a folder that it understands: Parquet, audiofolder,
                                    webdataset, CSV or JSON lines
    splits: {train: train, validation: val}
    columns: {audio: audio, captions: caption, labels: category}

Rows are streamed. A recording within a row is stored below the stage's output; one that the row
names by its path stays where it is, if that is in the corpus. Captions are a text or a list of
texts; labels are those, texts with ";" between labels, or numbers of a `ClassLabel`. A column
within a column is named with a dot, such as webdataset's `json.text`.
"""

import os
from collections.abc import Iterator, Sequence
from pathlib import PurePosixPath
from typing import Any

from flap.core.errors import UserError, first_line
from flap.sources.config import HuggingFaceDataset
from flap.sources.files import RECORDING_SUFFIXES, CorpusFiles, without_suffix
from flap.sources.record import AdapterOutput, Record, Location, RejectedRecord
from flap.sources.origins import freesound_origin, youtube_origin
from flap.sources.tables import as_seconds, as_texts

_HUB = "hf://datasets/"
_ARCHIVES = ("zip", "tar")
_MAGIC = {b"RIFF": ".wav", b"fLaC": ".flac", b"OggS": ".ogg", b"ID3": ".mp3"}
Row = dict[str, Any]


def read_huggingface(
    files: CorpusFiles, config: HuggingFaceDataset, output: AdapterOutput
) -> Iterator[Record | RejectedRecord]:
    """Each row of the splits that are asked for.

    Raises:
        UserError: it cannot be loaded, or lacks a split or a column.
    """
    for split, ours in config.splits.items():
        dataset = _load(config, split)
        classes = _classes(dataset.features, config.columns.get("labels"))
        for number, row in _rows(config, split, dataset):
            cells = {key: _cell(row, column, config) for key, column in config.columns.items()}
            where = f"{split}/{number}"
            found = _find(files, output, cells["audio"], where)
            if found is None:
                detail = f"nothing in '{config.columns['audio']}'"
                yield RejectedRecord(where, where, "missing", detail, ours)
                continue
            recording, place = found
            yield Record(
                where=where,
                recording=recording,
                name=_text(cells.get("name")) or without_suffix(recording),
                captions=as_texts(cells.get("captions")),
                labels=_labels(cells.get("labels"), classes),
                split=ours,
                duration_s=as_seconds(cells.get("duration_s")),
                licence=_text(cells.get("licence")),
                source=_text(cells.get("source")),
                origin=freesound_origin(cells.get("freesound_id")) or youtube_origin(cells.get("youtube_id")),
                recording_key=place.uri if place else "",
                location=place,
            )


def _load(config: HuggingFaceDataset, split: str) -> Any:
    """A `datasets.IterableDataset` whose recordings stay bytes and paths."""
    import datasets  # slow

    class StoredAudio(datasets.Audio):  # type: ignore[misc]
        """What `datasets.Audio` takes, without its need of torchcodec."""

        def encode_example(self, value: Any) -> Any:
            return value if isinstance(value, dict) else {"bytes": None, "path": str(value)}

    name = config.path.removeprefix(_HUB)
    if "://" in name:
        raise UserError(f"{config.path}: give a folder, or a name on the hub (owner/name)")
    try:
        dataset = datasets.load_dataset(
            name, config.configuration, split=split, revision=config.revision, streaming=True
        )
    except Exception as error:  # the library raises whatever its readers do
        raise _not_loaded(config, split, error) from error
    for column, feature in dict(dataset.features or {}).items():
        if isinstance(feature, datasets.Audio):
            dataset = dataset.cast_column(column, StoredAudio(decode=False))
    return dataset


def _rows(config: HuggingFaceDataset, split: str, dataset: Any) -> Iterator[tuple[int, Row]]:
    try:
        yield from enumerate(dataset)
    except Exception as error:
        raise _not_loaded(config, split, error) from error


def _not_loaded(config: HuggingFaceDataset, split: str, error: Exception) -> UserError:
    return UserError(
        f"{config.path}: `datasets` cannot load split '{split}' ({first_line(error)}); mend path, "
        "configuration, revision or splits, or copy the data set to a folder here (`hf download "
        "--repo-type dataset owner/name --local-dir folder`) and name that"
    )


def _cell(row: Row, column: str, config: HuggingFaceDataset) -> Any:
    value: Any = row
    for part in [column] if column in row else column.split("."):
        if value is None:
            return None
        if not isinstance(value, dict) or part not in value:
            raise UserError(f"{config.path}: no column '{column}'; there are: {', '.join(row)}")
        value = value[part]
    return value


def _classes(features: Any, column: str | None) -> Sequence[str] | None:
    """Names of the classes that a column holds by number, None if it holds names."""
    feature = (features or {}).get(column)
    feature = getattr(feature, "feature", feature)
    return getattr(feature, "names", None)


def _labels(value: Any, classes: Sequence[str] | None) -> list[str]:
    if classes is None:
        return [label for text in as_texts(value) for label in text.split(";")]
    return [classes[int(number)] for number in as_texts(value) if int(number) >= 0]  # -1 is unknown


def _text(value: Any) -> str:
    return "; ".join(as_texts(value))


def _find(
    files: CorpusFiles, output: AdapterOutput, audio: Any, numbered: str
) -> tuple[str, Location | None] | None:
    """Path of a recording in the corpus, and its place if that is no file there."""
    if isinstance(audio, bytes):
        audio = {"bytes": audio}
    elif not isinstance(audio, dict):
        audio = {"path": audio}
    data, path = audio.get("bytes"), audio.get("path") or ""
    if data is not None:
        suffix = _suffix(path, data)
        return f"{numbered}{suffix}", output.keep(data, suffix)
    return _in_place(files, path) if path else None


def _suffix(path: str, data: bytes) -> str:
    suffix = PurePosixPath(path).suffix.lower()
    if suffix in RECORDING_SUFFIXES:
        return suffix
    return next((known for magic, known in _MAGIC.items() if data.startswith(magic)), "")


def _in_place(files: CorpusFiles, path: str) -> tuple[str, Location | None]:
    """A file of the corpus, or a member of its archive: `zip://a.wav::<archive>`.

    What is not inside comes back as an absolute path, for the shared rules to refuse.
    """
    inner, chain, outer = path.rpartition("::")
    protocol, _, member = inner.partition("://")
    if chain and (protocol not in _ARCHIVES or "::" in inner or files.escapes(member)):
        return f"/{path}", None
    if outer.startswith(_HUB):
        name = f"{_HUB}{files.root.removeprefix(_HUB)}"
        is_own = outer.startswith((f"{name}/", f"{name}@")) and not files.escapes(outer)
        return (path if is_own else f"/{path}"), Location(path)
    root = PurePosixPath(os.path.realpath(files.root))
    recording = os.path.relpath(os.path.realpath(root / outer), root)
    if not chain:
        return recording, None
    return f"{recording}/{member}", Location(f"{inner}::{files.uri(recording)}")
