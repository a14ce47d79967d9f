"""(original, tags, answer) → measures, and whether the answer is fit for training.

The functions here depend only on their arguments, on words.yaml and on the AudioSet names. If
several reasons to reject an answer hold, the first one in the order of REASONS is recorded.
"""

import re
from collections import Counter
from collections.abc import Callable, Sequence
from typing import NamedTuple

from flap.captions.config import CaptionsConfig
from flap.captions.words import (
    TokenizedText,
    implied_sounds,
    names_tag,
    tag_name_stems,
    tag_stems,
    tokenize,
    word_lists,
)

REASONS = (
    "request_failed",  # the server gave no answer
    "no_tags",  # no sound was detected, so no request was sent
    "empty",  # the answer has no words
    "truncated",  # the answer reached max_tokens
    "non_english",  # too few ASCII letters, or function words of another language
    "prompt_echo",  # the answer repeats the wording of the request
    "refusal",  # the model speaks about itself or declines
    "chatty",  # the model addresses the reader: "Sure, here is ..."
    "too_long",  # more than max_words words or max_text_tokens tokens
    "repetition",  # the answer repeats a phrase
    "copy",  # the content words are those of the original
    "low_faithfulness",  # too few content words of the original are kept
    "low_tag_coverage",  # too few tags are named
    "invented_sounds",  # too many sounds that neither the original nor the tags name or imply
    "invented",  # too many content words from neither the original nor the tags
)

_MIN_ASCII_SHARE = 0.9
_MIN_WORDS_TO_TELL_LANGUAGE = 6
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


class CheckResult(NamedTuple):
    """Measures of an answer, as columns of CAPTIONS; shares are between 0 and 1."""

    n_words: int
    n_tokens: int
    tag_coverage: float
    original_coverage: float  # share of the tags that the original names
    faithfulness: float
    invented: float
    invented_sounds: int
    reason: str  # one of REASONS, or '' if the answer is kept


def check_caption(
    original: str,
    tags: Sequence[str],
    answer: str | None,
    *,
    finish_reason: str,
    n_tokens: int,
    limits: CaptionsConfig,
) -> CheckResult:
    """Measure one answer, and find the reason to reject it.

    Args:
        original: the caption that was to be enriched.
        tags: AudioSet display names.
        answer: None if the request failed.
        finish_reason: as the server reports it, such as "stop" or "length".
        n_tokens: length of the answer by the LLM's tokenizer, 0 if unknown.
    """
    before, after = tokenize(original), tokenize(answer or "")
    coverage, kept = tag_coverage(tags, after), faithfulness(before, after)
    added, sounds = invented(before, tags, after), invented_sounds(before, tags, after)
    n_words = len(after.words)
    holds = {
        "request_failed": answer is None and bool(tags),
        "no_tags": not tags,
        "empty": n_words == 0,
        "truncated": finish_reason == "length",
        "non_english": not is_english(answer or "", after),
        "prompt_echo": _only_answer_matches(_ECHO, before, after),
        "refusal": _only_answer_matches(_REFUSAL, before, after),
        "chatty": _only_answer_matches(_CHATTY, before, after),
        "too_long": n_words > limits.max_words or n_tokens > limits.max_text_tokens,
        "repetition": is_repetitive(before, after),
        "copy": is_copy(before, after),
        "low_faithfulness": kept < limits.min_faithfulness,
        "low_tag_coverage": coverage < limits.min_tag_coverage,
        "invented_sounds": sounds > limits.max_invented_sounds,
        "invented": added > limits.max_invented,
    }
    reason = next((reason for reason in REASONS if holds[reason]), "")
    original_coverage = tag_coverage(tags, before)
    return CheckResult(n_words, n_tokens, coverage, original_coverage, kept, added, sounds, reason)


def tag_coverage(tags: Sequence[str], text: TokenizedText) -> float:
    """Share of the tags that the text names; 1 if there are no tags."""
    return _ratio(sum(names_tag(text.stem_set, tag) for tag in tags), len(tags))


def faithfulness(original: TokenizedText, answer: TokenizedText) -> float:
    """Share of the original's distinct content words that the answer keeps; 1 if it has none."""
    content = original.content_set
    return _ratio(len(content & answer.stem_set), len(content))


def invented(original: TokenizedText, tags: Sequence[str], answer: TokenizedText) -> float:
    """Share of the answer's distinct content words that neither the original nor the tags have."""
    content = answer.content_set
    return len(_unsupported(original, tags, content)) / len(content) if content else 0.0


def invented_sounds(original: TokenizedText, tags: Sequence[str], answer: TokenizedText) -> int:
    """Number of distinct sounds in the answer that the original and the tags do not imply.

    A sound is a word that names an AudioSet class. Each distinct word counts once: "meow" and
    "cat" are two sounds, and a word that names several classes is one.
    """
    implied = implied_sounds()
    sounds = _unsupported(original, tags, answer.content_set & implied.keys())
    if not sounds:
        return 0
    given = original.stem_set.union(*map(tag_stems, tags))
    return len(sounds.difference(*(implied[stem] for stem in given & implied.keys())))


def is_english(text: str, tokens: TokenizedText) -> bool:
    """Whether most letters are ASCII and English function words outnumber foreign ones.

    A text without function words ("dog barking, rain falling") counts as English, and so does
    an ASCII text that is too short to tell.
    """
    if ascii_share(text) < _MIN_ASCII_SHARE:
        return False
    n_foreign = len(word_lists().foreign.intersection(tokens.words))
    return (
        len(tokens.words) < _MIN_WORDS_TO_TELL_LANGUAGE
        or n_foreign < 2
        or n_foreign < len(word_lists().stop.intersection(tokens.words))
    )


def ascii_share(text: str) -> float:
    """Share of the text's letters that are ASCII; 1 if it has no letters."""
    if text.isascii():
        return 1.0
    letters = [letter for letter in text if letter.isalpha()]
    return _ratio(sum(letter.isascii() for letter in letters), len(letters))


def is_repetitive(original: TokenizedText, answer: TokenizedText) -> bool:
    """Whether a phrase occurs in the answer more than once, and more often than in the original.

    A phrase is three successive words, or two successive content words.
    """
    return _repeats(_trigrams, original, answer) or _repeats(_content_bigrams, original, answer)


def is_copy(original: TokenizedText, answer: TokenizedText) -> bool:
    """Whether both texts have the same content words, in the same order and form."""
    if original.content_set != answer.content_set:
        return False
    return _content_words(original) == _content_words(answer)


def _unsupported(
    original: TokenizedText, tags: Sequence[str], stems: frozenset[str]
) -> frozenset[str]:
    """The stems that the original does not contain, and that are no name or word of a tag."""
    return stems.difference(original.stem_set, *map(tag_name_stems, tags), *map(tag_stems, tags))


def _only_answer_matches(
    pattern: re.Pattern[str], original: TokenizedText, answer: TokenizedText
) -> bool:
    """Whether the answer matches and the original does not: an original may quote "I'm sorry"."""
    return bool(pattern.search(answer.normalized)) and not pattern.search(original.normalized)


def _repeats(
    phrases_of: Callable[[TokenizedText], list[tuple[str, ...]]],
    original: TokenizedText,
    answer: TokenizedText,
) -> bool:
    phrases = phrases_of(answer)
    if len(set(phrases)) == len(phrases):  # nearly always
        return False
    in_original = Counter(phrases_of(original))
    return any(n > max(in_original[phrase], 1) for phrase, n in Counter(phrases).items())


def _trigrams(text: TokenizedText) -> list[tuple[str, ...]]:
    return list(zip(text.stems, text.stems[1:], text.stems[2:], strict=False))


def _content_bigrams(text: TokenizedText) -> list[tuple[str, ...]]:
    pairs = zip(text.content, text.content[1:], strict=False)
    return [pair for pair in pairs if all(pair)]


def _content_words(text: TokenizedText) -> list[str]:
    return [word for word, stem in zip(text.words, text.content, strict=True) if stem]


def _ratio(part: int, whole: int) -> float:
    """part / whole; 1 if `whole` is 0."""
    return part / whole if whole else 1.0
