"""A question and its answers so far → whether to ask again, and the row of CAPTIONS."""

from dataclasses import dataclass, field

from flap.captions.asker import Asked, Question
from flap.captions.audit import Verdict, audit
from flap.captions.cache import Answer
from flap.captions.client import Failure
from flap.core.shards import Row


@dataclass
class Trial:
    """Asked again, each time otherwise, until an answer is kept or the tries are used up."""

    question: Question
    asked: Asked
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
        self._verdicts.append(self._judge(answer))
        self._answers.append(answer)

    def row(self) -> Row:
        """The row of the answer that is kept, which is the last one; of the first if none is."""
        is_kept = bool(self._verdicts) and not self._verdicts[-1].reason
        attempt = len(self._answers) - 1 if is_kept else 0
        if self._answers:
            answer, verdict = self._answers[attempt], self._verdicts[attempt]
        else:
            answer, verdict = None, self._judge(None)
        return {
            "clip_id": self.question.clip_id,
            "original": self.question.original,
            "tags": list(self.question.tags),
            **self.asked.origin,
            "enriched": answer.text if answer else "",
            "attempt": attempt,
            **verdict._asdict(),
            "kept": is_kept,
            "error": self._failure.error if self._failure and not answer else "",
            "requests": len(self._answers),
            "prompt_tokens": sum(answer.prompt_tokens for answer in self._answers),
            "answer_tokens": sum(answer.answer_tokens for answer in self._answers),
        }

    def _judge(self, answer: Answer | None) -> Verdict:
        question, limits = self.question, self.asked.config
        text, finish = (answer.text, answer.finish) if answer else (None, "")
        return audit(question.original, question.tags, text, finish, self._n_tokens(answer), limits)

    def _n_tokens(self, answer: Answer | None) -> int:
        """The server counts what it adds to the opening; that has a token a word or so."""
        if answer is None or not answer.answer_tokens:
            return 0
        question = self.question
        opening = self.asked.prompt.opening(question.tags, question.original, self.attempt)
        return answer.answer_tokens + len(opening.split())
