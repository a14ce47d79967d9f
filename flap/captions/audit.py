"""(original, tags, answer) → measures and a verdict: is this caption fit for training?

Pure functions of their arguments and of words.yaml. The first reason that holds, in the order
of REASONS, is the one that is written down.
"""

import re
from collections import Counter
from collections.abc import Hashable, Sequence
from dataclasses import dataclass

from flap.captions.config import CaptionsConfig
from flap.captions.words import (
    all_stems,
    content_stems,
    content_words,
    names_tag,
    neighbouring_content,
    stems,
    tag_names,
    words,
)

REASONS = (
    "request_failed",  # the server gave no answer
    "no_tags",  # nothing was detected, so nothing was asked
    "empty",  # no word in the answer
    "truncated",  # the answer ran into max_tokens
    "non_english",  # too few ASCII letters
    "prompt_echo",  # the answer repeats the request's own wording
    "refusal",  # the model speaks about itself or declines
    "too_long",  # more than max_words
    "repetition",  # the answer runs in circles
    "copy",  # the original's content words over again and nothing else
    "low_faithfulness",  # too little of the original is kept
    "low_tag_coverage",  # too few tags are named
    "invented",  # too much is in neither the original nor the tags
)

_MIN_ASCII_SHARE = 0.9
_ECHO = re.compile(
    r"combine it with|describe a situation|\banswer:|sounds? and combine|\{\w+\}", re.IGNORECASE
)
_REFUSAL = re.compile(
    r"\b(as an ai|language model|i('m| am) (sorry|unable|not able)|i can(no|')t|i apologi[sz]e)\b",
    re.IGNORECASE,
)


@dataclass(frozen=True)
class Verdict:
    """What the audit found; shares are 0..1; `reason` is '' for a caption that is kept."""

    n_words: int
    tag_coverage: float
    faithfulness: float
    invented: float
    reason: str


def audit(
    original: str, tags: Sequence[str], answer: str | None, finish: str, limits: CaptionsConfig
) -> Verdict:
    """Judge one answer; None is a request that failed, `finish` the server's finish_reason."""
    enriched = answer or ""
    coverage = tag_coverage(tags, enriched)
    kept = faithfulness(original, enriched)
    added = invented(original, tags, enriched)
    n_words = len(words(enriched))
    broken = {
        "request_failed": answer is None and bool(tags),
        "no_tags": not tags,
        "empty": n_words == 0,
        "truncated": finish == "length",
        "non_english": ascii_share(enriched) < _MIN_ASCII_SHARE,
        "prompt_echo": bool(_ECHO.search(enriched)),
        "refusal": bool(_REFUSAL.search(enriched)),
        "too_long": n_words > limits.max_words,
        "repetition": repeats(original, enriched),
        "copy": is_copy(original, enriched),
        "low_faithfulness": kept < limits.min_faithfulness,
        "low_tag_coverage": coverage < limits.min_tag_coverage,
        "invented": added > limits.max_invented,
    }
    reason = next((reason for reason in REASONS if broken[reason]), "")
    return Verdict(n_words, coverage, kept, added, reason)


def tag_coverage(tags: Sequence[str], text: str) -> float:
    """Share of the tags that the text names; 1 if there are none."""
    found = all_stems(text)
    return _share(sum(names_tag(found, tag) for tag in tags), len(tags))


def faithfulness(original: str, text: str) -> float:
    """Share of the original's distinct content words that the text keeps; 1 if it has none."""
    wanted = set(content_stems(original))
    return _share(len(wanted & all_stems(text)), len(wanted))


def invented(original: str, tags: Sequence[str], text: str) -> float:
    """Share of the text's distinct content words found in neither the original nor the tags."""
    named = frozenset[str]().union(*(tag_names(tag) | all_stems(tag) for tag in tags))
    found = set(content_stems(text))
    return len(found - all_stems(original) - named) / len(found) if found else 0.0


def ascii_share(text: str) -> float:
    """Share of the text's letters that are ASCII; 1 if it has no letters."""
    letters = [letter for letter in text if letter.isalpha()]
    return _share(sum(letter.isascii() for letter in letters), len(letters))


def repeats(original: str, text: str) -> bool:
    """Whether three words, or two neighbouring content words, come again unlike in the original."""
    return _again(stems(original), stems(text), 3) or _again(
        neighbouring_content(original), neighbouring_content(text), 1
    )


def is_copy(original: str, text: str) -> bool:
    """Whether the text says the same content words, in the same order and form, and no others."""
    return content_words(original) == content_words(text)


def _again(original: Sequence[Hashable], text: Sequence[Hashable], length: int) -> bool:
    before, after = _runs(original, length), _runs(text, length)
    return any(count > max(before[run], 1) for run, count in after.items())


def _runs(items: Sequence[Hashable], length: int) -> Counter[tuple[Hashable, ...]]:
    return Counter(tuple(items[i : i + length]) for i in range(len(items) - length + 1))


def _share(part: int, whole: int) -> float:
    return part / whole if whole else 1.0
