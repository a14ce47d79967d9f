"""Adapter `wavcaps`: one part of WavCaps, its JSON and a folder of recordings.

    sb_final.json    {"num_captions_per_audio": 1, "data": [{"id": …, "caption": …,
                      "duration": …, "href" or "download_link": …}, …]}
    blacklist.json   {"FreeSound": [id, …], "AudioSet": [id, …], …}

Recordings are named by their id, whatever their extension. All are for training: WavCaps has no
other split; its blacklists name the clips that others evaluate on.
"""

import json
import re
from collections.abc import Iterator
from pathlib import PurePosixPath
from typing import Any

from flap.errors import UserError
from flap.sources.config import WavCapsDataset
from flap.sources.corpus import Intake, Item, Refused
from flap.sources.files import CorpusFiles
from flap.sources.recordings import Recordings

_AUDIOSET_ID = re.compile(r"Y(.{11})")
_LINKS = ("download_link", "href")


def read_wavcaps(
    files: CorpusFiles, config: WavCapsDataset, intake: Intake
) -> Iterator[Item | Refused]:
    """Each entry of the JSON.

    Raises:
        UserError: the JSON or the blacklist is missing or not in its form.
    """
    entries = _read_json(files, config.table).get("data")
    if not isinstance(entries, list):
        raise UserError(f"{files.uri(config.table)}: has no list `data`; expected WavCaps' JSON")
    banned = _blacklist(files, config.blacklist)
    recordings = Recordings(files)
    for number, entry in enumerate(entries, 1):
        where = f"{config.table}, entry {number}"
        if not isinstance(entry, dict) or not entry.get("id"):
            yield Refused(where, f"entry-{number}", "missing", "no id")
            continue
        stem = _stem(entry["id"])
        recording = recordings.find(stem) or f"{stem}.flac"
        if stem in banned:
            yield Refused(where, recording, "blacklisted", f"'{stem}' is in {config.blacklist}")
            continue
        yield _item(where, stem, recording, entry)


def _read_json(files: CorpusFiles, name: str) -> dict[str, Any]:
    if not files.has(name):
        raise UserError(f"{files.uri(name)}: no such file")
    with files.open(name) as file:
        try:
            read = json.load(file)
        except ValueError as error:
            raise UserError(f"{files.uri(name)}: not JSON: {error}") from None
    if not isinstance(read, dict):
        raise UserError(f"{files.uri(name)}: expected a JSON object")
    return read


def _blacklist(files: CorpusFiles, name: str | None) -> frozenset[str]:
    if name is None:
        return frozenset()
    parts = _read_json(files, name).values()
    return frozenset(_stem(each) for ids in parts if isinstance(ids, list) for each in ids)


def _stem(clip_id: Any) -> str:
    """AudioSet's ids carry an extension, Freesound's are numbers."""
    text = str(clip_id)
    return text.removesuffix(".wav").removesuffix(".flac")


def _item(where: str, stem: str, recording: str, entry: dict[str, Any]) -> Item:
    caption = entry.get("caption") or []
    duration = entry.get("duration")
    link = next((str(entry[name]) for name in _LINKS if entry.get(name)), "")
    return Item(
        where=where,
        recording=recording,
        name=stem,
        captions=[str(each) for each in (caption if isinstance(caption, list) else [caption])],
        labels=[str(each) for each in entry.get("tags") or []],
        split="train",
        duration_s=float(duration) if isinstance(duration, int | float) and duration > 0 else None,
        source=link,
        origin=_origin(stem, recording, link),
    )


def _origin(stem: str, recording: str, link: str) -> str:
    """The parts are told apart by the form of the id, and by link or folder for Freesound."""
    if found := _AUDIOSET_ID.fullmatch(stem):
        return f"youtube:{found[1]}"
    hints = f"{link} {PurePosixPath(recording).parent}".casefold()
    if stem.isdigit() and ("freesound" in hints or "/people/" in hints):
        return f"freesound:{stem}"
    return ""
