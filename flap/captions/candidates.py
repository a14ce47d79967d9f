"""A caption and its completions so far → whether to request another one; the row of CAPTIONS."""

from dataclasses import dataclass, field
from typing import NamedTuple

from flap.captions.cache import Completion
from flap.captions.checks import CheckResult, check_caption
from flap.captions.client import Failure
from flap.captions.request import CaptionInput, RequestBuilder
from flap.core.shards import Row


class _Candidate(NamedTuple):
    completion: Completion
    result: CheckResult


@dataclass
class Candidates:
    """The candidate enriched captions of one clip.

    Candidates are requested, each with another opening or seed, until one passes the checks, a
    request fails, or all attempts are used up.
    """

    caption: CaptionInput
    requests: RequestBuilder
    _found: list[_Candidate] = field(default_factory=list)
    _failure: Failure | None = None

    @property
    def next_attempt(self) -> int:
        """Number of the next attempt, from 0."""
        return len(self._found)

    @property
    def is_complete(self) -> bool:
        return (
            not self.caption.tags  # no sound was detected: there is nothing to add
            or self._failure is not None
            or self.next_attempt == self.requests.max_attempts
            or self._is_kept
        )

    @property
    def has_failed(self) -> bool:
        """Whether a request failed, so that another run may give another row."""
        return self._failure is not None

    def add(self, completion: Completion | Failure) -> None:
        if isinstance(completion, Failure):
            self._failure = completion
        else:
            self._found.append(_Candidate(completion, self._check(completion)))

    def row(self) -> Row:
        """The row of CAPTIONS: the candidate that is kept, or else the first candidate."""
        attempt = len(self._found) - 1 if self._is_kept else 0
        if self._found:
            completion, result = self._found[attempt]
        else:
            completion, result = None, self._check(None)
        completions = [candidate.completion for candidate in self._found]
        return {
            "clip_id": self.caption.clip_id,
            "original": self.caption.original,
            "tags": list(self.caption.tags),
            **self.requests.provenance,
            "enriched": completion.text if completion else "",
            "attempt": attempt,
            **result._asdict(),
            "kept": self._is_kept,
            "error": self._failure.error if self._failure and not completion else "",
            "requests": len(completions),
            "prompt_tokens": sum(one.prompt_tokens for one in completions),
            "answer_tokens": sum(one.answer_tokens for one in completions),
        }

    @property
    def _is_kept(self) -> bool:
        """Whether the last candidate passed the checks; no request follows such a candidate."""
        return bool(self._found) and not self._found[-1].result.reason

    def _check(self, completion: Completion | None) -> CheckResult:
        return check_caption(
            self.caption.original,
            self.caption.tags,
            completion.text if completion else None,
            finish_reason=completion.finish_reason if completion else "",
            n_tokens=self._n_tokens(completion),
            limits=self.requests.config,
        )

    def _n_tokens(self, completion: Completion | None) -> int:
        """Tokens of the answer with its opening, 0 if unknown.

        The server counts only the tokens that follow the opening; the opening has about one
        token for each word.
        """
        if completion is None or not completion.answer_tokens:
            return 0
        opening = self.requests.opening(self.caption, self.next_attempt)
        return completion.answer_tokens + len(opening.split())
