"""Adapter `wavcaps`: the JSON of one part of WavCaps, and the part's recordings.

    corpora/wavcaps/
        json_files/FreeSound/fsd_final.json                     `table`
        json_files/blacklist/blacklist_exclude_test_ac.json     `blacklist`, {part: [id, …]}
        FreeSound/180913.flac …                                 anywhere below

    {"num_captions_per_audio": 1, "data": [
        {"id": "180913", "caption": "A traditional ringtone is playing.", "duration": 3.2,
         "tags": ["ringtone"], "href": "/people/Tempouser/sounds/180913/",
         "download_link": "https://freesound.org/people/Tempouser/…", …}, …]}

The name of a recording is the entry's id without its extension. Ids of several parts are plain
numbers. The adapter therefore prefers recordings below a folder with the name of the table's
folder ("FreeSound"), and never takes a recording below another part's folder.

The origin of an entry is YouTube if its id is a "Y" and the eleven characters of a YouTube id
(AudioSet_SL). The origin is Freesound if the id is a number, and the table is in the part's folder
or the entry links to Freesound. Entries of SoundBible and the BBC have no origin. The blacklists
name ids of AudioSet and FreeSound; the adapter compares origins. All clips are train.
"""

import re
from collections.abc import Iterator
from pathlib import PurePosixPath
from typing import Any

from flap.core.errors import UserError
from flap.sources.config import WavCapsDataset
from flap.sources.files import RECORDING_SUFFIXES, CorpusFiles, in_folder
from flap.sources.origins import freesound_origin, youtube_origin
from flap.sources.record import AdapterOutput, Record, RejectedRecord
from flap.sources.tables import as_seconds, as_texts, read_json

_EXTENSION = re.compile("(" + "|".join(map(re.escape, RECORDING_SUFFIXES)) + ")$", re.IGNORECASE)
_FREESOUND_LINK = re.compile(r"freesound\.org|^/people/[^/]+/sounds/")
_PARTS = ("AudioSet_SL", "FreeSound", "SoundBible", "BBC_Sound_Effects")
_ORIGINS = {
    "AudioSet": lambda name: youtube_origin(name.removeprefix("Y")),
    "AudioSet_SL": lambda name: youtube_origin(name.removeprefix("Y")),
    "FreeSound": freesound_origin,
}
"""Part → function from id to origin; the blacklists call the part AudioSet_SL "AudioSet"."""


def read_wavcaps(
    files: CorpusFiles, config: WavCapsDataset, output: AdapterOutput
) -> Iterator[Record | RejectedRecord]:
    """Each entry of the part's JSON.

    Raises:
        UserError: the JSON or the blacklist is missing or malformed.
    """
    entries = _entries(files, config.table)
    blacklist = _blacklist(files, config.blacklist) if config.blacklist else frozenset()
    part, blacklisted = PurePosixPath(config.table).parent.name, set[str]()
    for number, entry in enumerate(entries, 1):
        record = _record(f"{config.table}, entry {number}", entry, part, files)
        if isinstance(record, Record) and record.origin in blacklist:
            blacklisted.add(record.origin)
            detail = f"in {config.blacklist}"
            yield RejectedRecord(
                record.where, record.recording, "blacklisted", detail, record.split
            )
        else:
            yield record
    if config.blacklist:
        output.notes.append(
            f"{len(blacklisted)} of {len(blacklist)} clips of the blacklist are in {config.table}"
        )


def _entries(files: CorpusFiles, table: str) -> list[dict[str, Any]]:
    content = read_json(files, table)
    entries = content.get("data") if isinstance(content, dict) else None
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        raise UserError(f'{files.uri(table)}: expected WavCaps\' {{"data": [{{…}}, …]}}')
    return entries


def _record(
    where: str, entry: dict[str, Any], part: str, files: CorpusFiles
) -> Record | RejectedRecord:
    name = _EXTENSION.sub("", str(entry.get("id") or ""))
    others = [other for other in _PARTS if other != part]
    named = files.recordings_named(name, part, others) if name else []
    if len(named) > 1 and not in_folder(named[0], part or "/"):
        detail = (
            f"several recordings have this name: {', '.join(named)}; put the table into the "
            "folder of its part"
        )
        return RejectedRecord(where, name, "missing", detail, "train")
    links = [link for key in ("download_link", "href") for link in as_texts(entry.get(key))]
    return Record(
        where=where,
        recording=named[0] if named else f"{name}.flac" if name else "",
        name=name,
        captions=as_texts(entry.get("caption")),
        labels=as_texts(entry.get("tags")),
        split="train",
        duration_s=as_seconds(entry.get("duration")),
        source=next(iter(links), ""),
        origin=_origin(name, part, links),
    )


def _origin(name: str, part: str, links: list[str]) -> str:
    if part in _ORIGINS:
        return _ORIGINS[part](name)
    if name.startswith("Y") and not links:
        return youtube_origin(name.removeprefix("Y"))
    return freesound_origin(name) if any(_FREESOUND_LINK.search(link) for link in links) else ""


def _blacklist(files: CorpusFiles, name: str) -> frozenset[str]:
    """The origins of the clips to leave out."""
    content = read_json(files, name)
    if not isinstance(content, dict) or not set(content) <= set(_ORIGINS):
        parts = ", ".join(_ORIGINS)
        raise UserError(f"{files.uri(name)}: expected {{part: [id, …]}}, parts {parts}")
    origins = (
        _ORIGINS[part](_EXTENSION.sub("", clip_id))
        for part, ids in content.items()
        for clip_id in as_texts(ids)
    )
    return frozenset(filter(None, origins))
