"""Questions → answers, each asked once: from the cache, from a question in flight, or anew."""

import asyncio
import json
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from flap.captions.cache import Answer, AnswerCache, request_key
from flap.captions.client import Failure
from flap.captions.config import CaptionsConfig
from flap.captions.prompt import Prompt
from flap.core.shards import Row

Send = Callable[[dict[str, Any]], Awaitable[Answer | Failure]]


@dataclass(frozen=True)
class Question:
    """One caption to enrich."""

    clip_id: str
    original: str
    tags: tuple[str, ...]


@dataclass(frozen=True)
class Asked:
    """What a question is put with."""

    prompt: Prompt
    model: str  # its name at the server
    weights: str  # their hash
    config: CaptionsConfig

    @cached_property
    def origin(self) -> Row:
        """What a row of CAPTIONS says of where its answer is from."""
        return {
            "prompt_id": self.prompt.id,
            "model": self.model,
            "revision": self.weights[:16],
            "sampling": json.dumps(self.config.sampling, sort_keys=True),
        }

    def body(self, question: Question, attempt: int) -> dict[str, Any]:
        return self.prompt.body(question.tags, question.original, attempt, self.config)

    def key(self, body: dict[str, Any]) -> bytes:
        """Cache key of a request."""
        return request_key([self.weights, self.prompt.chat_template, body])


class Asker:
    """Asks what the cache does not know; a failure is not remembered."""

    def __init__(self, send: Send, cache: AnswerCache, asked: Asked, dataset: str) -> None:
        self._send, self._cache, self._asked, self._dataset = send, cache, asked, dataset
        self._in_flight: dict[bytes, asyncio.Future[Answer | Failure]] = {}
        self.sent = 0

    async def __call__(self, question: Question, attempt: int) -> Answer | Failure:
        body = self._asked.body(question, attempt)
        key = self._asked.key(body)
        if (known := self._cache.get(key)) is not None:
            return known
        if key not in self._in_flight:
            task = asyncio.ensure_future(self._ask_anew(key, body, question, attempt))
            # The first error of a run cancels those who wait; further ones are no news then.
            task.add_done_callback(lambda done: done.cancelled() or done.exception())
            self._in_flight[key] = task
        return await self._in_flight[key]

    async def _ask_anew(
        self, key: bytes, body: dict[str, Any], question: Question, attempt: int
    ) -> Answer | Failure:
        try:
            self.sent += 1
            answer = await self._send(body)
            if isinstance(answer, Failure):
                return answer
            opening = self._asked.prompt.opening(question.tags, question.original, attempt)
            answer = replace(answer, text=tidy(opening + answer.text))
            self._cache.put(key, answer, self._dataset)
            return answer
        finally:
            del self._in_flight[key]


def tidy(text: str) -> str:
    """An answer without surrounding white space and quotation marks, on one line."""
    line = " ".join(text.split())
    if len(line) > 1 and line[0] == line[-1] == '"':
        line = line[1:-1].strip()
    return line
