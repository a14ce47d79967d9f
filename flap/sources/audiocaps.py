"""Adapter `audiocaps`: AudioCaps' CSVs, and its excerpts wherever they lie below the folder.

    train.csv, val.csv, test.csv    audiocap_id,youtube_id,start_time,caption

Validation and test have a row for each of five captions of an excerpt; those become one clip.
An excerpt's file is named by what downloaders use: `<youtube_id>_<start_time>`, `<youtube_id>`,
`Y<youtube_id>`, AudioSet's `Y<youtube_id>_<start_ms>_<end_ms>`, or the id of a caption.
"""

from collections.abc import Iterator

from flap.errors import UserError
from flap.sources.config import AudioCapsDataset
from flap.sources.corpus import Intake, Item, Refused
from flap.sources.files import CorpusFiles
from flap.sources.recordings import Recordings
from flap.sources.tables import Line, read_table

_COLUMNS = ("audiocap_id", "youtube_id", "start_time", "caption")
_EXCERPT_MS = 10_000


def read_audiocaps(
    files: CorpusFiles, config: AudioCapsDataset, intake: Intake
) -> Iterator[Item | Refused]:
    """Each excerpt that the CSVs name; one that is not there is named as it might be.

    Raises:
        UserError: there is no CSV, or one without AudioCaps' columns.
    """
    present = [split for split in ("train", "val", "test") if files.has(f"{split}.csv")]
    if not present:
        raise UserError(f"{config.path}: none of train.csv, val.csv and test.csv is here")
    recordings = Recordings(files)
    for split in present:
        for lines in _excerpts(files, f"{split}.csv"):
            yield _item(split, lines, recordings)


def _excerpts(files: CorpusFiles, table: str) -> list[list[Line]]:
    """The rows of each excerpt, in the order of their first."""
    columns, lines = read_table(files, table)
    missing = [column for column in _COLUMNS if column not in columns]
    if missing:
        raise UserError(f"{files.uri(table)}: column '{missing[0]}' is missing")
    excerpts: dict[tuple[str, str], list[Line]] = {}
    for line in lines:
        excerpts.setdefault((line["youtube_id"], line["start_time"]), []).append(line)
    return list(excerpts.values())


def _item(split: str, lines: list[Line], recordings: Recordings) -> Item:
    youtube_id, start = lines[0]["youtube_id"], lines[0]["start_time"]
    name = f"{youtube_id}_{start}"
    stems = [name, youtube_id, f"Y{youtube_id}", f"Y{name}"]
    if start.isdigit():
        start_ms = int(start) * 1000
        span = f"{youtube_id}_{start_ms}_{start_ms + _EXCERPT_MS}"
        stems += [span, f"Y{span}"]
    stems += [line["audiocap_id"] for line in lines]
    return Item(
        where=f"{split}.csv, line {lines[0].number}",
        recording=recordings.find(*stems, near=split) or f"{split}/{name}.wav",
        name=name,
        captions=[line["caption"] for line in lines],
        split=split,
        source="AudioSet",
        origin=f"youtube:{youtube_id}",
    )
