"""Adapter `huggingface`: any data set that the library `datasets` loads.

    path: google/some-dataset       a name on the hub, also as hf://datasets/google/some-dataset
    path: corpora/mine              a folder in a format of the library: Parquet, audiofolder,
                                    webdataset, CSV or JSON lines
    splits: {train: train, validation: val}
    columns: {audio: audio, captions: caption, labels: category}

Rows are streamed. A recording whose bytes are in a row is stored below the stage's output. A
recording that a row names by path must be in the corpus and is not copied. Captions are a text or
a list of texts. Labels are a text with ";" between labels, a list of texts, or numbers of a
`ClassLabel`. A dot names a field within a column, such as webdataset's `json.text`.
"""

import os
from collections.abc import Iterator, Sequence
from pathlib import PurePosixPath
from typing import Any

from flap.core.errors import UserError, first_line
from flap.sources.config import HuggingFaceDataset
from flap.sources.files import RECORDING_SUFFIXES, CorpusFiles, without_suffix
from flap.sources.origins import freesound_origin, youtube_origin
from flap.sources.record import AdapterOutput, Location, Record, RejectedRecord
from flap.sources.tables import as_seconds, as_texts

_HUB = "hf://datasets/"
_ARCHIVES = ("zip", "tar")
_MAGIC = {b"RIFF": ".wav", b"fLaC": ".flac", b"OggS": ".ogg", b"ID3": ".mp3"}
Row = dict[str, Any]


def read_huggingface(
    files: CorpusFiles, config: HuggingFaceDataset, output: AdapterOutput
) -> Iterator[Record | RejectedRecord]:
    """Each row of the splits in `config.splits`.

    Raises:
        UserError: the data set cannot be loaded, or lacks a split or a column.
    """
    for split, our_split in config.splits.items():
        dataset = _load(config, split)
        classes = _classes(dataset.features, config.columns.get("labels"))
        for number, row in _rows(config, split, dataset):
            cells = {key: _cell(row, column, config) for key, column in config.columns.items()}
            where = f"{split}/{number}"
            found = _find(files, output, cells["audio"], where)
            if found is None:
                detail = f"nothing in '{config.columns['audio']}'"
                yield RejectedRecord(where, where, "missing", detail, our_split)
                continue
            recording, location = found
            yield Record(
                where=where,
                recording=recording,
                name=_text(cells.get("name")) or without_suffix(recording),
                captions=as_texts(cells.get("captions")),
                labels=_labels(cells.get("labels"), classes),
                split=our_split,
                duration_s=as_seconds(cells.get("duration_s")),
                licence=_text(cells.get("licence")),
                source=_text(cells.get("source")),
                origin=freesound_origin(cells.get("freesound_id"))
                or youtube_origin(cells.get("youtube_id")),
                recording_key=location.uri if location else "",
                location=location,
            )


def _load(config: HuggingFaceDataset, split: str) -> Any:
    """A `datasets.IterableDataset` that does not decode recordings."""
    import datasets  # slow

    class StoredAudio(datasets.Audio):  # type: ignore[misc]
        """`datasets.Audio` without its dependency on torchcodec."""

        def encode_example(self, value: Any) -> Any:
            return value if isinstance(value, dict) else {"bytes": None, "path": str(value)}

    name = config.path.removeprefix(_HUB)
    if "://" in name:
        raise UserError(f"{config.path}: set `path` to a folder or a name on the hub (owner/name)")
    try:
        dataset = datasets.load_dataset(
            name, config.configuration, split=split, revision=config.revision, streaming=True
        )
    except Exception as error:  # each reader of the library has its own exceptions
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
        f"{config.path}: `datasets` cannot load split '{split}' ({first_line(error)}); correct "
        "path, configuration, revision or splits, or download the data set (`hf download "
        "--repo-type dataset owner/name --local-dir folder`) and set `path` to that folder"
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
    """Class names of a column that holds class numbers, None for a column of names."""
    feature = (features or {}).get(column)
    feature = getattr(feature, "feature", feature)
    return getattr(feature, "names", None)


def _labels(value: Any, classes: Sequence[str] | None) -> list[str]:
    if classes is None:
        return [label for text in as_texts(value) for label in text.split(";")]
    return [classes[int(number)] for number in as_texts(value) if int(number) >= 0]  # -1: unknown


def _text(value: Any) -> str:
    return "; ".join(as_texts(value))


def _find(
    files: CorpusFiles, output: AdapterOutput, audio: Any, row_name: str
) -> tuple[str, Location | None] | None:
    """Path of the recording in the corpus, and its location if it is no file there.

    None if the cell `audio` is empty.
    """
    if isinstance(audio, bytes):
        audio = {"bytes": audio}
    elif not isinstance(audio, dict):
        audio = {"path": audio}
    data, path = audio.get("bytes"), audio.get("path") or ""
    if data is not None:
        suffix = _suffix(path, data)
        return f"{row_name}{suffix}", output.store(data, suffix)
    return _in_place(files, path) if path else None


def _suffix(path: str, data: bytes) -> str:
    suffix = PurePosixPath(path).suffix.lower()
    if suffix in RECORDING_SUFFIXES:
        return suffix
    return next((known for magic, known in _MAGIC.items() if data.startswith(magic)), "")


def _in_place(files: CorpusFiles, path: str) -> tuple[str, Location | None]:
    """A file of the corpus, or a member of one of its archives: `zip://a.wav::<archive>`.

    A path out of the corpus is returned as an absolute path, which `corpus.collect` rejects.
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
