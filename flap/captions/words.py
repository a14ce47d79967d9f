"""Words → stems that can be compared: content words of a caption, names of a tag.

All English, by the Snowball stemmer and the word lists of words.yaml.
"""

import functools
import itertools
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import snowballstemmer
from ruamel.yaml import YAML

WORDS_FILE = Path(__file__).with_name("words.yaml")

_WORD = re.compile(r"[a-z0-9]+(?:['-][a-z0-9]+)*")
_TAG_BREAKS = re.compile(r"[,()]")
_PREPOSITIONS = frozenset({"on", "of", "by", "to", "in", "for", "with", "or", "and"})


@dataclass(frozen=True)
class WordLists:
    """words.yaml, stemmed."""

    stop: frozenset[str]  # words as they are written
    generic: frozenset[str]  # words as they are written
    same: Mapping[str, str]  # stem → the stem that stands for its group
    covers: Mapping[str, frozenset[str]]  # tag alternative → stems that also name it


def words(text: str) -> list[str]:
    """Lower-case words of a text, without punctuation."""
    return _WORD.findall(text.lower())


def content_words(text: str) -> list[str]:
    """Words that are not in the stop list, in order."""
    return [word for word in words(text) if word not in word_lists().stop]


def content_stems(text: str) -> list[str]:
    """Stems of the content words, in order."""
    return [stem(word) for word in content_words(text)]


def neighbouring_content(text: str) -> list[tuple[str, str]]:
    """Stems of each two content words that stand side by side, in order."""
    stop, spelled = word_lists().stop, words(text)
    pairs = itertools.pairwise(spelled)
    return [(stem(a), stem(b)) for a, b in pairs if a not in stop and b not in stop]


def stems(text: str) -> list[str]:
    """Stems of all words, in order."""
    return [stem(word) for word in words(text)]


def all_stems(text: str) -> frozenset[str]:
    return frozenset(stems(text))


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
    names: set[str] = set()
    for part in _TAG_BREAKS.split(display_name.lower()):
        spelled = words(part)
        while len(spelled) > 1 and spelled[-1] in word_lists().generic:
            spelled.pop()
        cut = next((i for i, word in enumerate(spelled) if i and word in _PREPOSITIONS), None)
        head = next(reversed(spelled[:cut]), None)
        if head is None:
            continue
        names.add(stem(head))
        for known in (head, part.strip()):
            names |= word_lists().covers.get(known, frozenset())
    return frozenset(names)


def names_tag(found: frozenset[str], display_name: str) -> bool:
    """Whether a text with these stems `found` names the tag."""
    return bool(found & tag_names(display_name))


@functools.lru_cache(maxsize=1)
def word_lists() -> WordLists:
    raw = YAML(typ="safe", pure=True).load(WORDS_FILE.read_text())
    same = {_snowball(word): _snowball(group[0]) for group in raw["same"] for word in group}

    def stemmed(found: list[str]) -> frozenset[str]:
        return frozenset(same.get(_snowball(word), _snowball(word)) for word in found)

    return WordLists(
        stop=frozenset(raw["stop"]),
        generic=frozenset(raw["generic"]),
        same=same,
        covers={tag: stemmed(found) for tag, found in raw["covers"].items()},
    )


def _snowball(word: str) -> str:
    return str(_stemmer().stemWord(word))


@functools.lru_cache(maxsize=1)
def _stemmer() -> "snowballstemmer.stemmer":
    return snowballstemmer.stemmer("english")
