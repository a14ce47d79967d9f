"""Adapter `labelled`: recordings with a label each, as ESC-50, UrbanSound8K and their like.

Either one CSV at the top or in `meta/`, with these columns beside those of `flap.sources.folder`:

| ESC-50 | UrbanSound8K | |
|---|---|---|
| filename | slice_file_name | the recording, found by its name wherever it lies |
| category | class | its label |
| fold | fold | decides the split, with `splits: {val: [4], test: [5]}` |
| src_file | fsID | Freesound id of the upload that it was cut from |

or no CSV, and a folder for each label: `<label>/<recording>`.
"""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import PurePosixPath

from flap.errors import UserError
from flap.sources.config import Folds, LabelledDataset
from flap.sources.corpus import Intake, Item, Refused
from flap.sources.files import CorpusFiles
from flap.sources.folder import item_of, note_ignored
from flap.sources.recordings import SUFFIXES, Recordings
from flap.sources.tables import Line, read_table

_OUR_NAMES = {
    "filename": "file_name",
    "slice_file_name": "file_name",
    "category": "labels",
    "class": "labels",
    "src_file": "freesound_id",
    "fsID": "freesound_id",
}
_NOT_ASKED_FOR = {"fold", "target", "classID", "take", "esc10", "start", "end", "salience"}


def read_labelled(
    files: CorpusFiles, config: LabelledDataset, intake: Intake
) -> Iterator[Item | Refused]:
    """Each recording of the CSV, or of the folders of labels.

    Raises:
        UserError: there is more than one CSV, it lacks a column that it must have, or folds are
            to decide where there are none.
    """
    tables = [name for name in files.find(".csv") if name.removeprefix("meta/").count("/") == 0]
    if len(tables) > 1:
        raise UserError(f"{config.path}: expected one CSV, found {', '.join(tables)}")
    items = _of_table(files, tables[0], config, intake) if tables else _of_folders(files, config)
    for item in items:
        captions = [text for text in item.captions if text.strip()]
        if not captions and config.caption is not None:
            words = (label.strip().replace("_", " ") for label in item.labels)
            captions = [config.caption.replace("{label}", word) for word in words]
        yield replace(item, captions=captions, together=[item.origin or item.recording])


def _of_table(
    files: CorpusFiles, table: str, config: LabelledDataset, intake: Intake
) -> Iterator[Item]:
    theirs, lines = read_table(files, table)
    columns = {_OUR_NAMES.get(column, column) for column in theirs}
    needed = {"file_name", "labels"} | ({"fold"} if isinstance(config.splits, Folds) else set())
    if needed - columns:
        raise UserError(
            f"{files.uri(table)}: needs a recording's filename, its category and, for splits by "
            f"fold, its fold (columns found: {', '.join(theirs)})"
        )
    note_ignored(sorted(columns - _NOT_ASKED_FOR), intake)
    recordings = Recordings(files)
    for line in lines:
        item = item_of(_in_our_names(line))
        if not files.has(item.recording):
            found = recordings.find(PurePosixPath(item.recording or "_").stem)
            item = replace(item, recording=found or item.recording)
        yield replace(item, split=item.split or _fold_split(line["fold"], config))


def _in_our_names(line: Line) -> Line:
    return Line(line.number, {_OUR_NAMES.get(k, k): cell for k, cell in line.cells.items()})


def _of_folders(files: CorpusFiles, config: LabelledDataset) -> Iterator[Item]:
    if isinstance(config.splits, Folds):
        raise UserError(
            f"{config.path}: no CSV says which fold a recording is in; write "
            "`splits: {seed: 0, fractions: {train: 0.8, val: 0.1, test: 0.1}}`"
        )
    for recording in files.find(*SUFFIXES):
        path = PurePosixPath(recording)
        yield Item(
            where=recording,
            recording=recording,
            name=path.with_suffix("").as_posix(),
            labels=[path.parent.name],
        )


def _fold_split(fold: str, config: LabelledDataset) -> str | None:
    """Split of a fold; what is no number is no split either, and rejected by that name."""
    if not isinstance(config.splits, Folds):
        return None
    if not fold.isdigit():
        return f"fold {fold}"
    if int(fold) in config.splits.val:
        return "val"
    return "test" if int(fold) in config.splits.test else "train"
