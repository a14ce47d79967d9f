"""Text → stems that can be compared: of captions, of tags, and of sounds that imply each other.

English only: the Snowball stemmer and the word lists of words.yaml.
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
_ALTERNATIVE_BREAKS = re.compile(r"[,()]")
_PREPOSITIONS = frozenset({"on", "of", "by", "to", "in", "for", "with", "or", "and"})


@dataclass(frozen=True)
class WordLists:
    """The lists of words.yaml."""

    stop: frozenset[str]  # words, not stemmed
    foreign: frozenset[str]  # words, not stemmed
    generic: frozenset[str]  # words, not stemmed
    silent: frozenset[str]  # stems
    same: Mapping[str, str]  # stem → stem of the first word of its group
    covers: Mapping[str, frozenset[str]]  # alternative of a tag → stems that also name it


class TokenizedText(NamedTuple):
    """A text with its words and stems, computed once for all measures."""

    normalized: str  # lower case, without accents, with straight apostrophes
    words: list[str]  # without punctuation
    stems: list[str]  # one for each word
    content: list[str]  # one for each word: its stem, or '' for a stop word
    stem_set: frozenset[str]
    content_set: frozenset[str]  # without ''


class _Alternative(NamedTuple):
    """One part of a display name; commas and brackets separate the parts."""

    head: str  # stem of its head noun: "church bell" → bell
    names: frozenset[str]  # stems, each of which names the alternative
    is_one_word: bool


def tokenize(text: str) -> TokenizedText:
    normalized, stop = _normalize(text), word_lists().stop
    words: list[str] = _WORD.findall(normalized)
    stems = [stem(word) for word in words]
    content = ["" if word in stop else found for word, found in zip(words, stems, strict=True)]
    content_set = frozenset(content) - {""}
    return TokenizedText(normalized, words, stems, content, frozenset(stems), content_set)


@functools.lru_cache(maxsize=1 << 16)
def stem(word: str) -> str:
    """Snowball stem; words of one group of the list `same` have the same stem."""
    found = _snowball(word)
    return word_lists().same.get(found, found)


@functools.lru_cache(maxsize=4096)
def tag_name_stems(display_name: str) -> frozenset[str]:
    """Stems, each of which is enough to name the tag.

    "Church bell" → bell, chime, toll, …; "Male speech, man speaking" → speak, voice, …
    """
    return frozenset[str]().union(*(part.names for part in _alternatives(display_name)))


@functools.lru_cache(maxsize=4096)
def tag_stems(display_name: str) -> frozenset[str]:
    """Stems of all words of the display name."""
    return tokenize(display_name).stem_set


def names_tag(stems: frozenset[str], display_name: str) -> bool:
    """Whether a text with these stems names the tag."""
    return not stems.isdisjoint(tag_name_stems(display_name))


@functools.cache
def implied_sounds() -> Mapping[str, frozenset[str]]:
    """Stem that names an AudioSet sound → stems of the sounds that it implies.

    bark → dog, animal, …; dog → bark, puppy, animal, …. But "car" does not imply "siren",
    although "Police car (siren)" is a class.
    """
    implied: defaultdict[str, set[str]] = defaultdict(set)
    silent = word_lists().silent
    for display_name in display_names():
        name = display_name.split("(")[0]  # brackets only distinguish classes of the same name
        parts = [part for part in _alternatives(name) if part.head not in silent]
        for part in parts:
            implied[part.head].add(part.head)
            if part.is_one_word:
                implied[part.head] |= (part.names - silent) | {other.head for other in parts}
            for alias in part.names - silent:
                implied[alias].add(part.head)
    return {sound: frozenset(stems) for sound, stems in implied.items()}


@functools.lru_cache(maxsize=1)
def word_lists() -> WordLists:
    raw = YAML(typ="safe", pure=True).load(WORDS_FILE.read_text())
    same = {_snowball(word): _snowball(group[0]) for group in raw["same"] for word in group}

    def stemmed(words: list[str]) -> frozenset[str]:
        return frozenset(same.get(_snowball(word), _snowball(word)) for word in words)

    return WordLists(
        stop=frozenset(raw["stop"]),
        foreign=frozenset(raw["foreign"]),
        generic=frozenset(raw["generic"]),
        silent=stemmed(raw["silent"]),
        same=same,
        covers={tag: stemmed(words) for tag, words in raw["covers"].items()},
    )


def _alternatives(display_name: str) -> Iterator[_Alternative]:
    lists = word_lists()
    for part in _ALTERNATIVE_BREAKS.split(display_name.lower()):
        words = _WORD.findall(part)
        while len(words) > 1 and words[-1] in lists.generic:
            words.pop()
        cut = next((i for i, word in enumerate(words) if i and word in _PREPOSITIONS), None)
        if head := next(reversed(words[:cut]), None):
            covered = (lists.covers.get(name, frozenset()) for name in (head, part.strip()))
            names = frozenset({stem(head)}).union(*covered)
            yield _Alternative(stem(head), names, part.strip() == head)


def _normalize(text: str) -> str:
    if text.isascii():
        return text.lower()
    decomposed = unicodedata.normalize("NFKD", text.replace("\u2019", "'"))
    return "".join(letter for letter in decomposed if not unicodedata.combining(letter)).lower()


def _snowball(word: str) -> str:
    return str(_stemmer().stemWord(word))


@functools.lru_cache(maxsize=1)
def _stemmer() -> "snowballstemmer.stemmer":
    return snowballstemmer.stemmer("english")
