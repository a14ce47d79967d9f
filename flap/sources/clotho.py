"""Adapter `clotho`: Clotho v2.1 as it is published.

    clotho_captions_development.csv    file_name,caption_1,…,caption_5     (also validation,
    clotho_metadata_development.csv    file_name,keywords,sound_id,…        evaluation)
    development/*.wav

The metadata may be absent; with it come labels, licences and Freesound ids. Splits keep their
right names: development is for training, validation for choosing, evaluation for scores.
"""

from collections.abc import Iterator
from pathlib import PurePosixPath

from flap.errors import UserError
from flap.sources.config import ClothoDataset
from flap.sources.corpus import Intake, Item, Refused
from flap.sources.files import CorpusFiles
from flap.sources.recordings import Recordings
from flap.sources.tables import Line, read_table

_SPLITS = ("development", "validation", "evaluation")


def read_clotho(
    files: CorpusFiles, config: ClothoDataset, intake: Intake
) -> Iterator[Item | Refused]:
    """Each recording that the tables of captions name.

    Raises:
        UserError: there is no table of captions, or one without its columns.
    """
    tables = {split: _table(files, f"clotho_captions_{split}") for split in _SPLITS}
    if not any(tables.values()):
        raise UserError(f"{config.path}: no clotho_captions_*.csv is here or below")
    recordings = Recordings(files)
    for split, table in tables.items():
        if table is None:
            intake.notes.append(f"clotho_captions_{split}.csv is not here")
            continue
        metadata = _metadata(files, split)
        columns, lines = read_table(files, table)
        if "file_name" not in columns or "caption_1" not in columns:
            raise UserError(f"{files.uri(table)}: needs the columns file_name and caption_1 to _5")
        for line in lines:
            yield _item(split, line, metadata.get(line["file_name"]), recordings)


def _table(files: CorpusFiles, stem: str) -> str | None:
    return next((name for name in files.find(f"{stem}.csv")), None)


def _metadata(files: CorpusFiles, split: str) -> dict[str, Line]:
    """The metadata of each file; its CSVs are in Windows' encoding."""
    table = _table(files, f"clotho_metadata_{split}")
    if table is None:
        return {}
    _, lines = read_table(files, table, encoding="cp1252")
    return {line["file_name"]: line for line in lines}


def _item(split: str, line: Line, about: Line | None, recordings: Recordings) -> Item:
    file_name, about = line["file_name"], about or Line(0, {})
    found = recordings.find(PurePosixPath(file_name or "_").stem, near=split)
    sound_id = about["sound_id"]
    return Item(
        where=f"clotho_captions_{split}.csv, line {line.number}",
        recording=found or f"{split}/{file_name}",
        name=PurePosixPath(file_name or "_").stem,
        captions=[line[f"caption_{i}"] for i in range(1, 6)],
        labels=about["keywords"].split(";"),
        split=split,
        licence=about["license"],
        source=about["sound_link"] or "Freesound",
        origin=f"freesound:{sound_id}" if sound_id.isdigit() else "",
    )
