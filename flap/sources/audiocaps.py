"""Adapter `audiocaps`: the tables of AudioCaps and the downloaded excerpts of YouTube videos.

    corpora/audiocaps/
        train.csv  val.csv  test.csv        one or more of them
        train/r1nicOVtvkQ_130.wav …         anywhere below

    audiocap_id,youtube_id,start_time,caption
    103549,r1nicOVtvkQ,130,A woman talks nearby as water pours

Each caption of an excerpt has its own line: one in train, five in val and test. All captions of
an excerpt become one clip. Download tools name the excerpts differently. Known names are
`{youtube_id}_{start_time}`, `{youtube_id}`, `Y{youtube_id}`, `{audiocap_id}`, and AudioSet's
`{youtube_id}_{start_ms}_{end_ms}` with or without a leading Y. Ids may begin with "-" and contain
"_", so the adapter builds names from the table's ids and does not parse file names.

Videos disappear from YouTube: a line without its excerpt becomes a reject, and the stage prints
how many clips of each split are present.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field

from flap.core.errors import UserError
from flap.core.schemas import SPLITS
from flap.sources.config import AudioCapsDataset
from flap.sources.files import CorpusFiles, in_folder
from flap.sources.origins import youtube_origin
from flap.sources.record import AdapterOutput, Record, RejectedRecord
from flap.sources.tables import read_table, require_columns

_COLUMNS = ("audiocap_id", "youtube_id", "start_time", "caption")
_TIMES_MS = re.compile(r"(.+_\d+)_\d+")
Recordings = dict[str, list[str]]


@dataclass
class _Excerpt:
    youtube_id: str
    start_s: str
    where: str
    audiocap_ids: list[str] = field(default_factory=list)
    captions: list[str] = field(default_factory=list)

    @property
    def name(self) -> str:
        return f"{self.youtube_id}_{self.start_s}"

    def stems(self) -> list[str]:
        """Known names of its recording without extension, the most specific first."""
        return [self.name, self.youtube_id, f"Y{self.youtube_id}", *self.audiocap_ids]

    def starts(self) -> list[str]:
        """AudioSet's names up to the start time."""
        start_ms = f"{self.start_s}000" if self.start_s != "0" else "0"
        return [f"{self.youtube_id}_{start_ms}", f"Y{self.youtube_id}_{start_ms}"]


def read_audiocaps(
    files: CorpusFiles, config: AudioCapsDataset, output: AdapterOutput
) -> Iterator[Record | RejectedRecord]:
    """Each excerpt of the tables that exist, in their order.

    Raises:
        UserError: there is no table, or a table is malformed.
    """
    splits = [split for split in SPLITS if files.exists(f"{split}.csv")]
    if not splits:
        raise UserError(
            f"{files.root}: none of train.csv, val.csv, test.csv is here; get them from the "
            "folder `dataset` of https://github.com/cdjkim/audiocaps"
        )
    starts = _by_start(files.recordings)
    for split in splits:
        for excerpt in _excerpts(files, f"{split}.csv"):
            if not excerpt.youtube_id:
                yield RejectedRecord(
                    excerpt.where, "", "missing", "names no youtube_id", split=split
                )
                continue
            yield Record(
                where=excerpt.where,
                recording=_find(excerpt, split, files.recordings, starts),
                name=excerpt.name,
                captions=excerpt.captions,
                split=split,
                source="AudioSet",
                origin=youtube_origin(excerpt.youtube_id),
            )


def _excerpts(files: CorpusFiles, table: str) -> list[_Excerpt]:
    columns, lines = read_table(files, table)
    require_columns(files.uri(table), columns, *_COLUMNS)
    found: dict[tuple[str, str], _Excerpt] = {}
    for line in lines:
        clip = line["youtube_id"], line["start_time"].removesuffix(".0")
        key = clip if clip[0] else ("", str(line.number))  # lines without an id are not one clip
        excerpt = found.setdefault(key, _Excerpt(*clip, where=f"{table}, line {line.number}"))
        excerpt.audiocap_ids.append(line["audiocap_id"])
        excerpt.captions.append(line["caption"])
    return list(found.values())


def _by_start(recordings: Recordings) -> Recordings:
    """Recordings with AudioSet's names, by the name up to the start; the tables have no end."""
    found: Recordings = {}
    for stem, names in recordings.items():
        if times := _TIMES_MS.fullmatch(stem):
            found.setdefault(times[1], []).extend(names)
    return found


def _find(excerpt: _Excerpt, split: str, recordings: Recordings, starts: Recordings) -> str:
    """Path of its recording, preferably in a folder of its split.

    If there is none, the path that the recording should have.
    """
    found = [recordings.get(stem) for stem in excerpt.stems()]
    found += [starts.get(start) for start in excerpt.starts()]
    names = next(filter(None, found), [f"{split}/{excerpt.name}.wav"])
    return next((name for name in names if in_folder(name, split)), names[0])
