"""Adapter `clotho`: Clotho v2.1 as it is published, its archives unpacked.

    corpora/clotho/
        clotho_captions_development.csv     file_name,caption_1, … caption_5
        clotho_captions_validation.csv
        clotho_captions_evaluation.csv      those that are there, at least one
        clotho_metadata_development.csv …   optional: keywords, Freesound's id, licence
        development/  validation/  evaluation/

    file_name,keywords,sound_id,sound_link,start_end_samples,manufacturer,license
    Rain.wav,rain;roof,12345,https://freesound.org/s/12345,"[0, 44100]",someone,http://creativecommons…

Development is train, validation val, evaluation test. A recording is looked for by name, first
below a folder whose name has the split's name in it (`clotho_audio_development/development/…`),
then wherever it is the only one of that name and in no other split's folder.
"""

from collections.abc import Iterator
from pathlib import PurePosixPath

from flap.core.errors import UserError
from flap.sources.config import ClothoDataset
from flap.sources.files import CorpusFiles, in_folder, stem, without_suffix
from flap.sources.record import AdapterOutput, Record
from flap.sources.origins import freesound_origin
from flap.sources.tables import Line, read_table, require_columns

_SPLITS = ("development", "validation", "evaluation")
_CAPTIONS = tuple(f"caption_{i}" for i in range(1, 6))


def read_clotho(files: CorpusFiles, config: ClothoDataset, output: AdapterOutput) -> Iterator[Record]:
    """Each recording of the captions' tables that are there.

    Raises:
        UserError: there is no table, or one is malformed.
    """
    tables = {split: f"clotho_captions_{split}.csv" for split in _SPLITS}
    present = {split: table for split, table in tables.items() if files.exists(table)}
    if not present:
        raise UserError(
            f"{files.root}: none of {', '.join(tables.values())}; Clotho v2.1 has them at "
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
    link = about["sound_link"]  # it and the id may be "Not found"
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
    """What the split's other table says of each recording; some of Clotho's are Latin-1."""
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
    """The recording; if there is none, or no telling which, what it should be."""
    found = files.recordings_named(stem(file_name), split, _SPLITS)
    exact = [name for name in found if PurePosixPath(name).name == file_name]
    own = exact or found
    return own[0] if len(own) == 1 or in_folder("".join(own[:1]), split) else f"{split}/{file_name}"
