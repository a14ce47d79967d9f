"""Adapter `wavcaps`: one part of WavCaps, its JSON and the recordings.

    corpora/wavcaps/
        json_files/FreeSound/fsd_final.json                     `table`
        json_files/blacklist/blacklist_exclude_test_ac.json     `blacklist`, {part: [id, …]}
        FreeSound/180913.flac …                                 anywhere below

    {"num_captions_per_audio": 1, "data": [
        {"id": "180913", "caption": "A traditional ringtone is playing.", "duration": 3.2,
         "tags": ["ringtone"], "href": "/people/Tempouser/sounds/180913/",
         "download_link": "https://freesound.org/people/Tempouser/…", …}, …]}

A recording is named by the entry's id, less an extension that the id may have. Ids of several
parts are plain numbers, so where folders have the name of the table's folder ("FreeSound"), only
recordings below them are taken.

An entry is of YouTube if its id is a "Y" and YouTube's eleven characters (AudioSet_SL), of
Freesound if its id is a number and its links lead there; SoundBible and the BBC have no origin.
The blacklists name ids of the parts AudioSet and FreeSound; they are compared by that origin.
Everything is train.
"""

import re
from collections.abc import Iterator
from pathlib import PurePosixPath
from typing import Any

from flap.errors import UserError
from flap.sources.config import WavCapsDataset
from flap.sources.corpus import Intake, Item, Refused
from flap.sources.files import CorpusFiles, in_folder
from flap.sources.tables import read_json, seconds, texts

_YOUTUBE = re.compile(r"Y([\w-]{11})")
_EXTENSION = re.compile(r"\.(wav|flac|mp3|ogg)$")
_FREESOUND_LINK = re.compile(r"freesound\.org|^/people/[^/]+/sounds/")
_SITES = {"AudioSet": "youtube", "AudioSet_SL": "youtube", "FreeSound": "freesound"}


def read_wavcaps(
    files: CorpusFiles, config: WavCapsDataset, intake: Intake
) -> Iterator[Item | Refused]:
    """Each entry of the part's JSON.

    Raises:
        UserError: the JSON or the blacklist is missing or malformed.
    """
    entries = _entries(files, config.table)
    blacklist = _blacklist(files, config.blacklist) if config.blacklist else frozenset()
    recordings = _recordings(files, PurePosixPath(config.table).parent.name)
    for number, entry in enumerate(entries, 1):
        item = _item(f"{config.table}, entry {number}", entry, recordings)
        if item.origin and item.origin in blacklist:
            yield Refused(item.where, item.recording, "blacklisted", f"in {config.blacklist}")
        else:
            yield item


def _entries(files: CorpusFiles, table: str) -> list[dict[str, Any]]:
    content = read_json(files, table)
    entries = content.get("data") if isinstance(content, dict) else None
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        raise UserError(f'{files.uri(table)}: expected WavCaps\' {{"data": [{{…}}, …]}}')
    return entries


def _item(where: str, entry: dict[str, Any], recordings: dict[str, str]) -> Item:
    name = _EXTENSION.sub("", str(entry.get("id") or ""))
    links = [link for key in ("download_link", "href") for link in texts(entry.get(key))]
    return Item(
        where=where,
        recording=recordings.get(name, f"{name}.flac" if name else ""),
        name=name,
        captions=texts(entry.get("caption")),
        labels=texts(entry.get("tags")),
        split="train",
        duration_s=seconds(entry.get("duration")),
        source=next(iter(links), ""),
        origin=_origin(name, links),
    )


def _origin(name: str, links: list[str]) -> str:
    youtube = _YOUTUBE.fullmatch(name)
    if youtube and not links:
        return f"youtube:{youtube[1]}"
    if name.isdecimal() and any(_FREESOUND_LINK.search(link) for link in links):
        return f"freesound:{name}"
    return ""


def _blacklist(files: CorpusFiles, name: str) -> frozenset[str]:
    """The origins of the clips to leave out."""
    content = read_json(files, name)
    if not isinstance(content, dict) or not set(content) <= set(_SITES):
        raise UserError(f"{files.uri(name)}: expected {{part: [id, …]}}, parts {', '.join(_SITES)}")
    return frozenset(
        f"{_SITES[part]}:{_youtube_id(bare) if _SITES[part] == 'youtube' else bare}"
        for part, ids in content.items()
        for bare in (_EXTENSION.sub("", one) for one in texts(ids))
    )


def _youtube_id(name: str) -> str:
    match = _YOUTUBE.fullmatch(name)
    return match[1] if match else name


def _recordings(files: CorpusFiles, part: str) -> dict[str, str]:
    """The part's recordings by name without extension."""
    everything = {stem: names[0] for stem, names in files.recordings.items()}
    if not part:
        return everything
    own = {
        stem: name
        for stem, names in files.recordings.items()
        for name in names
        if in_folder(name, part)
    }
    return own or everything
