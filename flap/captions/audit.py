"""(original, tags, answer) → measures and a verdict: is this caption fit for training?

Pure functions of their arguments, of words.yaml and of AudioSet's names. The first reason that
holds, in the order of REASONS, is the one that is written down.
"""

import re
from collections import Counter
from collections.abc import Callable, Sequence
from typing import NamedTuple

from flap.captions.config import CaptionsConfig
from flap.captions.words import (
    Wording,
    names_tag,
    sound_kin,
    tag_names,
    tag_stems,
    word_lists,
    wording,
)

REASONS = (
    "request_failed",  # the server gave no answer
    "no_tags",  # nothing was detected, so nothing was asked
    "empty",  # no word in the answer
    "truncated",  # the answer ran into max_tokens
    "non_english",  # too few ASCII letters, or another language's function words
    "prompt_echo",  # the answer repeats the request's own wording
    "refusal",  # the model speaks about itself or declines
    "chatty",  # the model speaks to its reader around the caption: "Sure, here is ..."
    "too_long",  # more than max_words, or than the max_text_tokens that text encoders read
    "repetition",  # the answer runs in circles
    "copy",  # the original's content words over again and nothing else
    "low_faithfulness",  # too little of the original is kept
    "low_tag_coverage",  # too few tags are named
    "invented_sounds",  # too many sounds that neither the original nor the tags name or imply
    "invented",  # too much is in neither the original nor the tags
)

_MIN_ASCII_SHARE = 0.9
_MIN_WORDS_OF_A_LANGUAGE = 6  # fewer do not tell it
_ECHO = re.compile(
    r"combine it with|describe a situation|sounds? and combine|\{\w+\}|\b(?:answer|user|assistant):"
    r"|^\W*(?:\w+ )?(?:caption|description|output|scene|situation)\W*:"
)
_REFUSAL = re.compile(
    r"\bas an ai\b|\blanguage model\b|\bi(?:'m| am) (?:sorry|unable|not able|just an?)\b"
    r"|\bi (?:can(?:no|')t|can not|won't|apologi[sz]e|don't have|do not have)\b"
    r"|\b(?:can(?:no|')t|unable to|not able to) (?:assist|help|provide|fulfil|comply|generate)"
)
_CHATTY = re.compile(
    r"^\W*(?:sure|certainly|of course|absolutely|alright|okay|ok|understood|got it)\s*[,!.:;]"
    r"|\bhere(?:'s| is| are)\b[^.:]*(?::|\b(?:description|caption|sentence|situation|version)\b)"
    r"|\b(?:this|the) (?:caption|description)\b|\blet me know\b|\bfeel free\b"
    r"|\bhope (?:this|that|it) helps\b"
)


class Verdict(NamedTuple):
    """What the audit found; shares are 0..1; `reason` is '' for a caption that is kept."""

    n_words: int
    n_tokens: int
    tag_coverage: float
    original_coverage: float  # share of the tags that the original names
    faithfulness: float
    invented: float
    invented_sounds: int
    reason: str


def audit(
    original: str,
    tags: Sequence[str],
    answer: str | None,
    finish: str,
    n_tokens: int,
    limits: CaptionsConfig,
) -> Verdict:
    """Judge one answer.

    Args:
        answer: None for a request that failed.
        finish: the server's finish_reason.
        n_tokens: of the answer by the LLM's tokenizer, 0 if unknown.
    """
    before, after = wording(original), wording(answer or "")
    coverage, kept = tag_coverage(tags, after), faithfulness(before, after)
    added, sounds = invented(before, tags, after), invented_sounds(before, tags, after)
    n_words = len(after.words)
    broken = {
        "request_failed": answer is None and bool(tags),
        "no_tags": not tags,
        "empty": n_words == 0,
        "truncated": finish == "length",
        "non_english": not is_english(answer or "", after),
        "prompt_echo": _says(_ECHO, before, after),
        "refusal": _says(_REFUSAL, before, after),
        "chatty": _says(_CHATTY, before, after),
        "too_long": n_words > limits.max_words or n_tokens > limits.max_text_tokens,
        "repetition": repeats(before, after),
        "copy": is_copy(before, after),
        "low_faithfulness": kept < limits.min_faithfulness,
        "low_tag_coverage": coverage < limits.min_tag_coverage,
        "invented_sounds": sounds > limits.max_invented_sounds,
        "invented": added > limits.max_invented,
    }
    reason = next((reason for reason in REASONS if broken[reason]), "")
    named_before = tag_coverage(tags, before)
    return Verdict(n_words, n_tokens, coverage, named_before, kept, added, sounds, reason)


def tag_coverage(tags: Sequence[str], text: Wording) -> float:
    """Share of the tags that the text names; 1 if there are none."""
    return _share(sum(names_tag(text.stem_set, tag) for tag in tags), len(tags))


def faithfulness(original: Wording, text: Wording) -> float:
    """Share of the original's distinct content words that the text keeps; 1 if it has none."""
    wanted = original.content_set
    return _share(len(wanted & text.stem_set), len(wanted))


def invented(original: Wording, tags: Sequence[str], text: Wording) -> float:
    """Share of the text's distinct content words found in neither the original nor the tags."""
    found = text.content_set
    return len(_unfounded(original, tags, found)) / len(found) if found else 0.0


def invented_sounds(original: Wording, tags: Sequence[str], text: Wording) -> int:
    """Distinct words of the text for AudioSet sounds that no word of the original or tags implies.

    A word that names several classes counts once, and so does each of a cat and its meow.
    """
    kin = sound_kin()
    sounds = _unfounded(original, tags, text.content_set & kin.keys())
    if not sounds:
        return 0
    said = original.stem_set.union(*map(tag_stems, tags))
    return len(sounds.difference(*(kin[stem] for stem in said & kin.keys())))


def is_english(text: str, spelled: Wording) -> bool:
    """Whether nearly all letters are ASCII, and function words, if many, are English ones.

    Captions without any function word ("dog barking, rain falling") are English too.
    """
    if ascii_share(text) < _MIN_ASCII_SHARE:
        return False
    foreign = len(word_lists().foreign.intersection(spelled.words))
    return (
        len(spelled.words) < _MIN_WORDS_OF_A_LANGUAGE
        or foreign < 2
        or foreign < len(word_lists().stop.intersection(spelled.words))
    )


def ascii_share(text: str) -> float:
    """Share of the text's letters that are ASCII; 1 if it has no letters."""
    if text.isascii():
        return 1.0
    letters = [letter for letter in text if letter.isalpha()]
    return _share(sum(letter.isascii() for letter in letters), len(letters))


def repeats(original: Wording, text: Wording) -> bool:
    """Whether three words, or two neighbouring content words, come again unlike in the original."""
    return _again(_threes, original, text) or _again(_content_pairs, original, text)


def is_copy(original: Wording, text: Wording) -> bool:
    """Whether the text says the same content words, in the same order and form, and no others."""
    return original.content_set == text.content_set and _spelled(original) == _spelled(text)


def _unfounded(original: Wording, tags: Sequence[str], found: frozenset[str]) -> frozenset[str]:
    """Those of the stems `found` that neither stand in the original nor name or spell a tag."""
    return found.difference(original.stem_set, *map(tag_names, tags), *map(tag_stems, tags))


def _says(pattern: re.Pattern[str], original: Wording, text: Wording) -> bool:
    """Whether the text has the pattern of itself: a man of the original may be sorry."""
    return bool(pattern.search(text.plain)) and not pattern.search(original.plain)


def _again(
    runs: Callable[[Wording], list[tuple[str, ...]]], original: Wording, text: Wording
) -> bool:
    after = runs(text)
    if len(set(after)) == len(after):  # nearly always
        return False
    before = Counter(runs(original))
    return any(count > max(before[run], 1) for run, count in Counter(after).items())


def _threes(text: Wording) -> list[tuple[str, ...]]:
    return list(zip(text.stems, text.stems[1:], text.stems[2:], strict=False))


def _content_pairs(text: Wording) -> list[tuple[str, ...]]:
    pairs = zip(text.content, text.content[1:], strict=False)
    return [pair for pair in pairs if all(pair)]


def _spelled(text: Wording) -> list[str]:
    return [word for word, stem in zip(text.words, text.content, strict=True) if stem]


def _share(part: int, whole: int) -> float:
    return part / whole if whole else 1.0
