"""Adapter `huggingface`: anything that the library `datasets` loads.

    path: google/some-dataset       a name on the hub, also as hf://datasets/google/some-dataset
    path: corpora/mine              a folder that it understands: Parquet, audiofolder,
                                    webdataset, CSV or JSON lines
    splits: {train: train, validation: val}
    columns: {audio: audio, captions: caption, labels: category}

Rows are streamed. A recording within a row is stored below the stage's output; one that the row
names by its path stays where it is, if that is in the corpus. Captions are a text or a list of
texts; labels are those, texts with ";" between labels, or numbers of a `ClassLabel`.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from flap.errors import UserError, first_line
from flap.sources.config import HuggingFaceDataset
from flap.sources.corpus import Intake, Item, Place, Refused
from flap.sources.files import RECORDING_SUFFIXES, CorpusFiles, stem
from flap.sources.tables import texts

_HUB = "hf://datasets/"
_MAGIC = {b"RIFF": ".wav", b"fLaC": ".flac", b"OggS": ".ogg", b"ID3": ".mp3"}


def read_huggingface(
    files: CorpusFiles, config: HuggingFaceDataset, intake: Intake
) -> Iterator[Item | Refused]:
    """Each row of the splits that are asked for.

    Raises:
        UserError: it cannot be loaded, or lacks a split or a column.
    """
    for split, ours in config.splits.items():
        dataset = _load(config, split)
        names = _class_names(dataset, config.columns.get("labels"))
        for number, row in _rows(config, split, dataset):
            where = f"{split}, row {number}"
            about = {key: row[column] for key, column in config.columns.items()}
            recording, place = _recording(files, intake, about["audio"], f"{split}/{number:07d}")
            yield Item(
                where=where,
                recording=recording,
                name=_first(about, "name") or stem(recording),
                captions=texts(about.get("captions")),
                labels=_labels(about.get("labels"), names),
                split=ours,
                licence=_first(about, "licence"),
                source=_first(about, "source"),
                place=place,
            )
