"""Adapter `clotho`: Clotho v2.1 as published, with its archives unpacked.

    corpora/clotho/
        clotho_captions_development.csv     file_name,caption_1, … caption_5
        clotho_captions_validation.csv
        clotho_captions_evaluation.csv      one or more of them
        clotho_metadata_development.csv …   optional: keywords, Freesound's id, licence
        development/  validation/  evaluation/

    file_name,keywords,sound_id,sound_link,start_end_samples,manufacturer,license
    Rain.wav,rain;roof,12345,https://freesound.org/s/12345,"[0, 44100]",someone,http://creativecommons…

Development becomes train, validation becomes val, evaluation becomes test. The adapter searches a
recording by name: first below a folder whose name contains the split's name
(`clotho_audio_development/development/…`), then anywhere, if only one recording has that name
and no other split's folder contains it.
"""

from collections.abc import Iterator
from pathlib import PurePosixPath

from flap.core.errors import UserError
from flap.sources.config import ClothoDataset
from flap.sources.files import CorpusFiles, in_folder, stem, without_suffix
from flap.sources.origins import freesound_origin
from flap.sources.record import AdapterOutput, Record
from flap.sources.tables import Line, read_table, require_columns

_SPLITS = ("development", "validation", "evaluation")
_CAPTIONS = tuple(f"caption_{i}" for i in range(1, 6))


def read_clotho(
    files: CorpusFiles, config: ClothoDataset, output: AdapterOutput
) -> Iterator[Record]:
    """Each recording of the tables of captions that exist.

    Raises:
        UserError: there is no table, or a table is malformed.
    """
    tables = {split: f"clotho_captions_{split}.csv" for split in _SPLITS}
    present = {split: table for split, table in tables.items() if files.exists(table)}
    if not present:
        raise UserError(
            f"{files.root}: none of {', '.join(tables.values())} is here; get them from "
            "https://zenodo.org/records/4783391"
        )
    for split, table in present.items():
        columns, lines = read_table(files, table)
        require_columns(files.uri(table), columns, "file_name", *_CAPTIONS)
        metadata = _metadata(files, split)
        for line in lines:
            yield _record(files, split, table, line, metadata)


def _record(
    files: CorpusFiles, split: str, table: str, line: Line, metadata: dict[str, Line]
) -> Record:
    about = metadata.get(line["file_name"], Line(0, {}))
    link = about["sound_link"]  # the link and the id may be "Not found"
    return Record(
        where=f"{table}, line {line.number}",
        recording=_find(files, split, line["file_name"]),
        name=without_suffix(line["file_name"]),
        captions=[line[column] for column in _CAPTIONS],
        labels=about["keywords"].split(";"),
        split=split,
        licence=about["license"],
        source=link if link.startswith("http") else "",
        origin=freesound_origin(about["sound_id"]),
    )


def _metadata(files: CorpusFiles, split: str) -> dict[str, Line]:
    """Recording → its line in the split's table of metadata; some of these tables are Latin-1."""
    table = f"clotho_metadata_{split}.csv"
    if not files.exists(table):
        return {}
    try:
        columns, lines = read_table(files, table)
    except UserError:
        columns, lines = read_table(files, table, encoding="latin-1")
    require_columns(files.uri(table), columns, "file_name")
    return {line["file_name"]: line for line in lines}


def _find(files: CorpusFiles, split: str, file_name: str) -> str:
    """Path of the recording; if there is none or no unique one, the path that it should have."""
    found = files.recordings_named(stem(file_name), split, _SPLITS)
    exact = [name for name in found if PurePosixPath(name).name == file_name]
    candidates = exact or found
    is_unique = len(candidates) == 1 or in_folder("".join(candidates[:1]), split)
    return candidates[0] if is_unique else f"{split}/{file_name}"
