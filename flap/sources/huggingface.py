"""Adapter `huggingface`: whatever the library `datasets` loads.

`path` is a folder here that it understands (Parquet, audiofolder, webdataset, …), or
`hf://datasets/owner/name`. `columns` says which of its columns is what. Recordings that lie
inside its tables are stored beside the shards; those that are files stay where they are.
"""

from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any

from flap.errors import UserError, first_line
from flap.sources.config import HuggingFaceDataset
from flap.sources.corpus import Intake, Item, Place, Refused
from flap.sources.files import CorpusFiles

HUB = "hf://datasets/"


def read_huggingface(
    files: CorpusFiles, config: HuggingFaceDataset, intake: Intake
) -> Iterator[Item | Refused]:
    """Each row of each split that `splits` names.

    Raises:
        UserError: the data set cannot be had, or lacks a column.
    """
    for theirs, ours in config.splits.items():
        for number, row in enumerate(_rows(config, theirs)):
            yield _entry(config, f"{theirs}/{number}", row, ours, intake)


def _rows(config: HuggingFaceDataset, split: str) -> Iterator[dict[str, Any]]:
    """The rows of a split under our names, recordings not decoded, labels as text."""
    import datasets  # slow to import

    name = config.path.removeprefix(HUB)
    try:
        rows = datasets.load_dataset(
            name, config.configuration, split=split, revision=config.revision, streaming=True
        )
        features = rows.features or {}
        _check_columns(config, list(features))
        rows = rows.cast_column(config.columns["audio"], datasets.Audio(decode=False))
        for row in rows:
            yield {
                ours: _text_of(features[column], row[column]) if ours == "labels" else row[column]
                for ours, column in config.columns.items()
            }
    except UserError:
        raise
    except Exception as error:  # the library raises whatever its readers do
        raise UserError(
            f"{config.path}: `datasets` cannot load split '{split}' ({first_line(error)}); mend "
            "path, configuration or revision, or copy the data set to a folder here and name that"
        ) from error


def _check_columns(config: HuggingFaceDataset, columns: list[str]) -> None:
    missing = [column for column in config.columns.values() if column not in columns]
    if missing:
        raise UserError(f"{config.path}: no column '{missing[0]}'; there are: {', '.join(columns)}")


def _text_of(feature: Any, value: Any) -> Any:
    """Numbers of a ClassLabel, or a list of them, as their names."""
    inner = getattr(feature, "feature", feature)
    if not hasattr(inner, "int2str") or value is None:
        return value
    return inner.int2str(value)


def _entry(
    config: HuggingFaceDataset, where: str, row: dict[str, Any], split: str, intake: Intake
) -> Item | Refused:
    place = _place(row["audio"] or {}, intake)
    if place is None:
        return Refused(where, where, "missing", f"nothing in column '{config.columns['audio']}'")
    return Item(
        where=where,
        recording=where,
        name=str(row.get("name") or where),
        captions=_texts(row.get("captions")),
        labels=_texts(row.get("labels")),
        split=split,
        licence=str(row.get("licence") or ""),
        source=str(row.get("source") or ""),
        place=place,
    )


def _place(audio: dict[str, Any], intake: Intake) -> Place | None:
    path, data = audio.get("path") or "", audio.get("bytes")
    if "://" in path or Path(path).is_file():
        return Place(path)
    return None if data is None else intake.keep(data, PurePosixPath(path).suffix)


def _texts(value: Any) -> list[str]:
    values = value if isinstance(value, list) else [value]
    return [str(each) for each in values if each is not None]
