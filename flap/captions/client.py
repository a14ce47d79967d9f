"""Questions → answers, each asked once: from the cache, from a question in flight, or anew."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence

from flap.captions.cache import Answer, AnswerCache, request_key
from flap.captions.config import CaptionsConfig
from flap.captions.prompt import Prompt

Ask = Callable[[Sequence[str], str, int], Awaitable[Answer | None]]  # tags, caption, attempt


class Unknown(Exception):
    """The cache does not know an answer, and there is nobody to ask."""


async def ask_nobody(_tags: Sequence[str], _caption: str, _attempt: int) -> Answer | None:
    """The `Ask` of a run from the cache alone."""
    raise Unknown


def question_key(
    weights: str,
    prompt: Prompt,
    config: CaptionsConfig,
    tags: Sequence[str],
    caption: str,
    attempt: int,
) -> str:
    """Cache key of one question: all that shapes its answer."""
    return request_key(
        weights=weights,
        prompt=prompt.id,
        text=prompt.text(tags, caption),
        opening=prompt.opening(tags, caption, attempt),
        temperature=config.temperature,
        max_tokens=config.max_tokens,
        seed=config.seed,
    )


class CachedAsker:
    """An `ask` that remembers. `weights` is the hash of the model's weights."""

    def __init__(
        self, ask: Ask, cache: AnswerCache, weights: str, prompt: Prompt, config: CaptionsConfig
    ) -> None:
        self._ask, self._cache = ask, cache
        self._weights, self._prompt, self._config = weights, prompt, config
        self._in_flight: dict[str, asyncio.Future[Answer | None]] = {}
        self.asked = 0  # questions that went out

    async def __call__(self, tags: Sequence[str], caption: str, attempt: int) -> Answer | None:
        """The answer; None if the request failed, which is not remembered."""
        key = question_key(self._weights, self._prompt, self._config, tags, caption, attempt)
        if (known := self._cache.get(key)) is not None:
            return known
        if key not in self._in_flight:
            task = asyncio.ensure_future(self._ask_anew(key, tags, caption, attempt))
            # The first error of a run cancels those who wait; further ones are no news then.
            task.add_done_callback(lambda done: done.cancelled() or done.exception())
            self._in_flight[key] = task
        return await self._in_flight[key]

    async def _ask_anew(
        self, key: str, tags: Sequence[str], caption: str, attempt: int
    ) -> Answer | None:
        try:
            self.asked += 1
            answer = await self._ask(tags, caption, attempt)
            if answer is not None:
                self._cache.put(key, answer)
            return answer
        finally:
            del self._in_flight[key]
