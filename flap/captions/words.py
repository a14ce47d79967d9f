"""Words → stems that can be compared: a text's wording, names of a tag, sounds that go together.

All English, by the Snowball stemmer and the word lists of words.yaml.
"""

import functools
import re
import unicodedata
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import snowballstemmer
from ruamel.yaml import YAML

from flap.core.audioset import display_names

WORDS_FILE = Path(__file__).with_name("words.yaml")

_WORD = re.compile(r"[a-z0-9]+(?:['-][a-z0-9]+)*")
_TAG_BREAKS = re.compile(r"[,()]")
_PREPOSITIONS = frozenset({"on", "of", "by", "to", "in", "for", "with", "or", "and"})


@dataclass(frozen=True)
class WordLists:
    """words.yaml, stemmed."""

    stop: frozenset[str]  # words as they are written
    foreign: frozenset[str]  # words as they are written
    generic: frozenset[str]  # words as they are written
    silent: frozenset[str]
    same: Mapping[str, str]  # stem → the stem that stands for its group
    covers: Mapping[str, frozenset[str]]  # tag alternative → stems that also name it


class Wording(NamedTuple):
    """A text taken apart, once for all that is asked of it."""

    plain: str  # in lower case, without accents and curly apostrophes
    words: list[str]  # without punctuation
    stems: list[str]  # of each word
    content: list[str]  # of each word, '' for those of the stop list
    stem_set: frozenset[str]
    content_set: frozenset[str]  # without ''


class _Alternative(NamedTuple):
    """One of the parts of a display name that commas and brackets set apart."""

    head: str  # stem of the word that says what it is: "church bell" → bell
    names: frozenset[str]  # stems any one of which names it
    is_one_word: bool


def wording(text: str) -> Wording:
    plain, stop = _plain(text), word_lists().stop
    words: list[str] = _WORD.findall(plain)
    stems = [stem(word) for word in words]
    content = ["" if word in stop else found for word, found in zip(words, stems, strict=True)]
    return Wording(plain, words, stems, content, frozenset(stems), frozenset(content) - {""})


@functools.lru_cache(maxsize=1 << 16)
def stem(word: str) -> str:
    """Snowball stem, and one stem for all words of a group of `same`."""
    found = _snowball(word)
    return word_lists().same.get(found, found)


@functools.lru_cache(maxsize=4096)
def tag_names(display_name: str) -> frozenset[str]:
    """Stems any one of which names the tag.

    "Church bell" → bell, chime, toll, …; "Male speech, man speaking" → speak, voice, …
    """
    return frozenset[str]().union(*(known.names for known in _alternatives(display_name)))


@functools.lru_cache(maxsize=4096)
def tag_stems(display_name: str) -> frozenset[str]:
    """Stems of the tag's own words."""
    return wording(display_name).stem_set


def names_tag(found: frozenset[str], display_name: str) -> bool:
    """Whether a text with these stems `found` names the tag."""
    return not found.isdisjoint(tag_names(display_name))


@functools.cache
def sound_kin() -> Mapping[str, frozenset[str]]:
    """Stem that names a sound of AudioSet → stems of sounds that whoever says it implies.

    bark → dog, animal, …; dog → bark, puppy, animal, …; but car → no siren, for all police cars.
    """
    kin: defaultdict[str, set[str]] = defaultdict(set)
    silent = word_lists().silent
    for display_name in display_names():
        spoken = display_name.split("(")[0]  # what stands in brackets tells like names apart
        known = [one for one in _alternatives(spoken) if one.head not in silent]
        for one in known:
            kin[one.head].add(one.head)
            if one.is_one_word:
                kin[one.head] |= (one.names - silent) | {other.head for other in known}
            for name in one.names - silent:
                kin[name].add(one.head)
    return {sound: frozenset(implied) for sound, implied in kin.items()}


@functools.lru_cache(maxsize=1)
def word_lists() -> WordLists:
    raw = YAML(typ="safe", pure=True).load(WORDS_FILE.read_text())
    same = {_snowball(word): _snowball(group[0]) for group in raw["same"] for word in group}

    def stemmed(found: list[str]) -> frozenset[str]:
        return frozenset(same.get(_snowball(word), _snowball(word)) for word in found)

    return WordLists(
        stop=frozenset(raw["stop"]),
        foreign=frozenset(raw["foreign"]),
        generic=frozenset(raw["generic"]),
        silent=stemmed(raw["silent"]),
        same=same,
        covers={tag: stemmed(found) for tag, found in raw["covers"].items()},
    )


def _alternatives(display_name: str) -> Iterator[_Alternative]:
    lists = word_lists()
    for part in _TAG_BREAKS.split(display_name.lower()):
        spelled = _WORD.findall(part)
        while len(spelled) > 1 and spelled[-1] in lists.generic:
            spelled.pop()
        cut = next((i for i, word in enumerate(spelled) if i and word in _PREPOSITIONS), None)
        if head := next(reversed(spelled[:cut]), None):
            covered = (lists.covers.get(known, frozenset()) for known in (head, part.strip()))
            names = frozenset({stem(head)}).union(*covered)
            yield _Alternative(stem(head), names, part.strip() == head)


def _plain(text: str) -> str:
    if text.isascii():
        return text.lower()
    spread = unicodedata.normalize("NFKD", text.replace("\u2019", "'"))
    return "".join(letter for letter in spread if not unicodedata.combining(letter)).lower()


def _snowball(word: str) -> str:
    return str(_stemmer().stemWord(word))


@functools.lru_cache(maxsize=1)
def _stemmer() -> "snowballstemmer.stemmer":
    return snowballstemmer.stemmer("english")
