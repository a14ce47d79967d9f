"""The samples of a webdataset tar: a recording and its JSON.

Members belong together if they have one name up to the extension, or, as webdataset has it, up
to the first dot of the file's name. The JSON is LAION's:

| key | |
|---|---|
| text | one caption or a list of them |
| tag | labels; may be absent |
| licence (or license), source | may be absent |
| original_data | what the corpus itself says, different in each |

In `original_data` licence and source are looked for as well, and the upload: `youtube_id`;
`freesound_id` and `sound_id` (Clotho); `id` and `fname` (FSD50K), if a link or the tar's path
says that they are Freesound's.
"""

import json
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from flap.sources.files import RECORDING_SUFFIXES, without_suffix
from flap.sources.origins import freesound_origin, youtube_origin
from flap.sources.tables import as_texts
from flap.sources.tars.members import Member

_CLOTHO_COLUMNS = {f"caption_{i}" for i in range(1, 6)}
_LINKS = ("sound_link", "url", "download_url", "href")
_FREESOUND = re.compile(r"freesound|fsd50k", re.IGNORECASE)


@dataclass(frozen=True)
class Sample:
    """A recording and its JSON; one of them may lack, not both."""

    name: str
    audio: Member | None
    text: Member | None


@dataclass(frozen=True)
class Description:
    """What a sample's JSON says."""

    captions: Sequence[str] = ()
    labels: Sequence[str] = ()
    licence: str = ""
    source: str = ""
    origin: str = ""
    excerpt: str = ""
    """Equal in samples that are one recording with several captions."""
    is_clotho: bool = False
    """Whether it quotes a line of Clotho's table of captions."""


def is_other(suffix: str) -> bool:
    """Whether a member with this suffix belongs to no sample."""
    return suffix != ".json" and suffix not in RECORDING_SUFFIXES


def pair(members: Sequence[Member]) -> Iterator[Sample]:
    """Samples in the order of their recordings, then each JSON that has no recording."""
    audio = [member for member in members if member.suffix in RECORDING_SUFFIXES]
    text = {without_suffix(m.name): m for m in members if m.suffix == ".json"}
    names = {without_suffix(member.name) for member in audio}
    loose_audio = Counter(_key(m.name) for m in audio if without_suffix(m.name) not in text)
    loose_text = Counter(_key(name) for name in text if name not in names)
    text_by_key = {_key(name): m for name, m in text.items() if name not in names}
    used = set(names)
    for member in audio:
        name, key = without_suffix(member.name), _key(member.name)
        if name not in text and loose_audio[key] == loose_text[key] == 1:
            yield Sample(key, member, text_by_key[key])
            used.add(without_suffix(text_by_key[key].name))
        else:
            yield Sample(name, member, text.get(name))
    for name, member in text.items():
        if name not in used:
            yield Sample(name, None, member)


def describe(json_text: bytes, tar: str) -> Description:
    """
    Args:
        tar: its path, which may say where the corpus is from.

    Raises:
        ValueError: it is no JSON object.
    """
    try:
        sample = json.loads(json_text)
    except RecursionError:
        raise ValueError("nested too deeply") from None
    if not isinstance(sample, dict):
        raise ValueError("no JSON object")
    original = sample.get("original_data")
    original = original if isinstance(original, dict) else {}
    both = {**original, **sample}
    return Description(
        captions=as_texts(sample.get("text")),
        labels=as_texts(sample.get("tag")),
        licence=_first(both, "licence", "license"),
        source=_first(both, "source", *_LINKS),
        origin=_origin(both, original, tar),
        excerpt=_excerpt(original),
        is_clotho=set(original) >= _CLOTHO_COLUMNS,
    )


def _origin(both: Mapping[str, Any], original: Mapping[str, Any], tar: str) -> str:
    found = youtube_origin(_first(both, "youtube_id"))
    found = found or freesound_origin(_first(both, "freesound_id", "sound_id"))
    if not found and (_FREESOUND.search(tar) or _FREESOUND.search(_first(both, *_LINKS))):
        found = freesound_origin(_first(original, "id", "fname"))
    return found


def _excerpt(original: Mapping[str, Any]) -> str:
    """AudioCaps' excerpt, "" for other corpora: its tars hold an record for each caption."""
    video, start = _first(original, "youtube_id"), _first(original, "start_time")
    return f"{video}:{start.removesuffix('.0')}" if video and start else ""


def _first(cells: Mapping[str, Any], *keys: str) -> str:
    """The first of the keys that has a text or a number, "" if none has."""
    found = (cells.get(key) for key in keys)
    return next((text for cell in found if not isinstance(cell, list) for text in as_texts(cell)), "")


def _key(name: str) -> str:
    """Webdataset's name of a sample."""
    folder, slash, file_name = name.rpartition("/")
    return f"{folder}{slash}{file_name.partition('.')[0]}"
