"""A question and its answers so far → whether to ask again, and the row of CAPTIONS."""

import json
from dataclasses import dataclass, field

from flap.captions.asker import Asked, Question
from flap.captions.audit import Verdict, audit
from flap.captions.cache import Answer
from flap.captions.client import Failure
from flap.shards import Row


@dataclass
class Trial:
    """Asked again, each time otherwise, until an answer is kept or the tries are used up."""

    question: Question
    asked: Asked
    model: str
    _answers: list[Answer] = field(default_factory=list)
    _verdicts: list[Verdict] = field(default_factory=list)
    _failure: Failure | None = None

    @property
    def attempt(self) -> int:
        """The next one's number, from 0."""
        return len(self._answers)

    @property
    def is_over(self) -> bool:
        return (
            not self.question.tags  # nothing was heard, so there is nothing to ask
            or self._failure is not None
            or self.attempt == self.asked.prompt.attempts(self.asked.config)
            or (bool(self._verdicts) and not self._verdicts[-1].reason)
        )

    @property
    def has_failed(self) -> bool:
        """Whether a request failed, so that another run may end otherwise."""
        return self._failure is not None

    def add(self, answer: Answer | Failure) -> None:
        if isinstance(answer, Failure):
            self._failure = answer
            return
        self._answers.append(answer)
        self._verdicts.append(self._judge(answer))

    def row(self) -> Row:
        """The row of the answer that is kept, of the first one if none is."""
        kept = [i for i, verdict in enumerate(self._verdicts) if not verdict.reason]
        attempt = kept[0] if kept else 0
        if self._answers:
            answer, verdict = self._answers[attempt], self._verdicts[attempt]
        else:
            answer, verdict = None, self._judge(None)
        error = self._failure.error if self._failure and not self._answers else ""
        return {
            "clip_id": self.question.clip_id,
            "original": self.question.original,
            "tags": list(self.question.tags),
            **self._origin(),
            "enriched": answer.text if answer else "",
            "attempt": attempt,
            "n_words": verdict.n_words,
            "n_tokens": self._n_tokens(answer, attempt),
            "tag_coverage": verdict.tag_coverage,
            "original_coverage": verdict.original_coverage,
            "faithfulness": verdict.faithfulness,
            "invented": verdict.invented,
            "invented_sounds": verdict.invented_sounds,
            "kept": verdict.reason == "",
            "reason": verdict.reason,
            "error": error,
            "requests": len(self._answers),
            "prompt_tokens": sum(answer.prompt_tokens for answer in self._answers),
            "answer_tokens": sum(answer.answer_tokens for answer in self._answers),
        }

    def _judge(self, answer: Answer | None) -> Verdict:
        text, finish = (answer.text, answer.finish) if answer else (None, "")
        n_tokens, question = self._n_tokens(answer, self.attempt - 1), self.question
        return audit(question.original, question.tags, text, finish, n_tokens, self.asked.config)

    def _n_tokens(self, answer: Answer | None, attempt: int) -> int:
        """The server counts what it adds to the opening; that has a token a word or so."""
        if answer is None or not answer.answer_tokens:
            return 0
        question = self.question
        opening = self.asked.prompt.opening(question.tags, question.original, attempt)
        return answer.answer_tokens + len(opening.split())

    def _origin(self) -> Row:
        config = self.asked.config
        sampling = {
            "temperature": config.temperature,
            "max_tokens": config.max_tokens,
            "seed": config.seed,
        }
        return {
            "prompt_id": self.asked.prompt.id,
            "model": self.model,
            "revision": self.asked.weights[:16],
            "sampling": json.dumps(sampling, sort_keys=True),
        }
