"""Adapter `labelled`: recordings with labels but no captions, such as ESC-50 and UrbanSound8K.

    ESC-50/                                     UrbanSound8K/
        meta/esc50.csv                              metadata/UrbanSound8K.csv
        audio/1-100032-A-0.wav …                    audio/fold5/100032-3-0-0.wav …

    filename,fold,target,category,esc10,src_file,take
    1-100032-A-0.wav,1,0,dog,True,100032,A

or, without a table, a folder for each label: `dog/bark.wav`, `cat/meow.flac`.

The table is in the corpus's folder, in `meta` or in `metadata`. The recordings are in the
corpus's folder, in `audio` or in `audio/fold<fold>`. Known columns are those above,
`slice_file_name`, `fsID` and `class` of UrbanSound8K, and all columns of the adapter `folder`.

Splits follow the column `fold` (`Folds`) or are drawn (`DrawnSplits`); clips of one upload get
the same drawn split. A clip without captions gets the configured caption, such as "The sound of
{label}.".
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import PurePosixPath

from flap.core.errors import UserError
from flap.sources.config import Folds, LabelledDataset
from flap.sources.files import RECORDING_SUFFIXES, CorpusFiles, without_suffix
from flap.sources.folder import record_from_line
from flap.sources.origins import freesound_origin
from flap.sources.record import AdapterOutput, Record
from flap.sources.tables import Line, read_table, require_columns

_FOLDER_COLUMNS = {
    "filename": "file_name",
    "slice_file_name": "file_name",
    "category": "label",
    "class": "label",
    "src_file": "freesound_id",
    "fsID": "freesound_id",
}
_ESC_NAME = re.compile(r"\d+-(\d+)-[A-Z]-\d+")


def read_labelled(
    files: CorpusFiles, config: LabelledDataset, output: AdapterOutput
) -> Iterator[Record]:
    """Each line of the table, or each recording in a folder.

    Raises:
        UserError: there are several tables, a table is malformed, or `Folds` are configured and
            there is no column `fold`.
    """
    table = _table(files)
    records = _in_table(files, config, table) if table else _in_folders(files, config, output)
    for record in records:
        captions = (
            record.captions if any(record.captions) else _captions(config.caption, record.labels)
        )
        esc = _ESC_NAME.fullmatch(PurePosixPath(record.recording).stem)
        origin = record.origin or (freesound_origin(esc[1]) if esc else "")
        yield replace(
            record, captions=captions, origin=origin, split_keys=[origin or record.recording]
        )


def _table(files: CorpusFiles) -> str | None:
    folders = ("", "meta", "metadata")
    found = [name for name in files.find(".csv", ".parquet") if _folder(name) in folders]
    if len(found) > 1:
        raise UserError(f"{files.root}: expected one table, found {', '.join(found)}")
    return found[0] if found else None


def _in_table(files: CorpusFiles, config: LabelledDataset, table: str) -> Iterator[Record]:
    header, lines = read_table(files, table)
    columns = [_FOLDER_COLUMNS.get(column, column) for column in header]
    splits = config.splits
    by_fold = ["fold"] if isinstance(splits, Folds) else []
    require_columns(files.uri(table), columns, "file_name", *by_fold)
    if len(set(columns)) < len(columns):
        twice = next(column for column in columns if columns.count(column) > 1)
        both = [column for column in header if _FOLDER_COLUMNS.get(column, column) == twice]
        raise UserError(
            f"{files.uri(table)}: columns {' and '.join(both)} mean the same; keep one of them"
        )
    for line in lines:
        cells = {_FOLDER_COLUMNS.get(column, column): cell for column, cell in line.cells.items()}
        fold = cells.get("fold", "").removesuffix(".0")
        record = record_from_line(Line(line.number, cells))
        yield replace(
            record,
            where=f"{table}, line {line.number}",
            recording=_find(files, record.recording, fold),
            split=_split(splits, fold) if isinstance(splits, Folds) else record.split,
        )


def _in_folders(
    files: CorpusFiles, config: LabelledDataset, output: AdapterOutput
) -> Iterator[Record]:
    if isinstance(config.splits, Folds):
        raise UserError(
            f"{files.root}: there is no table with a column 'fold'; draw the splits with "
            "`splits: {seed: 0, fractions: {train: 0.8, val: 0.1, test: 0.1}}`"
        )
    everything, recordings = files.find(""), files.find(*RECORDING_SUFFIXES)
    if others := sorted(set(everything) - set(recordings)):
        output.notes.append(
            f"{len(others)} files without an extension of recordings are ignored: {others[0]}, …"
        )
    for name in recordings:
        label = PurePosixPath(name).parent.name
        labels = [label] if label else []
        yield Record(where=name, recording=name, name=without_suffix(name), labels=labels)


def _find(files: CorpusFiles, name: str, fold: str) -> str:
    """Path of the recording; if there is none, the path that it should have."""
    if not name or files.escapes(name):
        return name  # `corpus.collect` rejects it
    paths = (name, f"audio/{name}", f"audio/fold{fold}/{name}")
    return next((path for path in paths if files.exists(path)), f"audio/{name}")


def _split(folds: Folds, fold: str) -> str:
    if not fold.isdecimal():
        return f"fold {fold}"  # no name of a split: `corpus.collect` rejects the row
    held_out = {**dict.fromkeys(folds.val, "val"), **dict.fromkeys(folds.test, "test")}
    return held_out.get(int(fold), "train")


def _captions(template: str | None, labels: Sequence[str]) -> list[str]:
    label_text = " and ".join(label.replace("_", " ").strip() for label in labels if label.strip())
    return [template.replace("{label}", label_text)] if template and label_text else []


def _folder(name: str) -> str:
    return name.rpartition("/")[0]
