"""The samples of a webdataset tar: a recording and its JSON.

Two members are one sample if their names are equal up to the extension, or, by webdataset's rule,
up to the first dot of the file's name. The keys of the JSON are LAION's:

| key | |
|---|---|
| text | one caption or a list of them |
| tag | labels; optional |
| licence (or license), source | optional |
| original_data | the corpus's description, with different keys in each corpus |

`original_data` may also hold the licence, the source and the id of the upload: `youtube_id`;
`freesound_id`; `sound_id` (Clotho); `id` or `fname` (FSD50K), if a link or the tar's path contains
"freesound" or "fsd50k".
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
    """A recording and its JSON; one of the two may be missing."""

    name: str
    audio: Member | None
    text: Member | None


@dataclass(frozen=True)
class Description:
    """The content of a sample's JSON."""

    captions: Sequence[str] = ()
    labels: Sequence[str] = ()
    licence: str = ""
    source: str = ""
    origin: str = ""
    excerpt: str = ""
    """Equal in samples of one recording, which differ in their captions; "" if unknown."""
    is_clotho: bool = False
    """Whether `original_data` has the columns of Clotho's table of captions."""


def is_other(suffix: str) -> bool:
    """Whether a member with this suffix is neither a recording nor JSON."""
    return suffix != ".json" and suffix not in RECORDING_SUFFIXES


def pair(members: Sequence[Member]) -> Iterator[Sample]:
    """Samples in the order of their recordings, then each JSON without a recording."""
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
        tar: path of the tar, which may contain the name of the corpus.

    Raises:
        ValueError: `json_text` is no JSON object.
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
    """The excerpt of AudioCaps, whose tars hold a sample for each caption; "" for other corpora."""
    video, start = _first(original, "youtube_id"), _first(original, "start_time")
    return f"{video}:{start.removesuffix('.0')}" if video and start else ""


def _first(cells: Mapping[str, Any], *keys: str) -> str:
    """The value of the first key that holds a text or a number, "" if there is none."""
    found = (cells.get(key) for key in keys)
    return next(
        (text for cell in found if not isinstance(cell, list) for text in as_texts(cell)), ""
    )


def _key(name: str) -> str:
    """Webdataset's key of a sample: the name up to the first dot."""
    folder, slash, file_name = name.rpartition("/")
    return f"{folder}{slash}{file_name.partition('.')[0]}"
