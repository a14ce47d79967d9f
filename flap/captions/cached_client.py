"""Requests → completions: from the cache, from an equal request in flight, or from the server."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any

from flap.captions.cache import Completion, CompletionCache
from flap.captions.client import Failure
from flap.captions.request import CaptionInput, RequestBuilder

Send = Callable[[dict[str, Any]], Awaitable[Completion | Failure]]


class CachedClient:
    """Sends only the requests that the cache cannot answer. Failures are not cached."""

    def __init__(
        self, send: Send, cache: CompletionCache, requests: RequestBuilder, dataset: str
    ) -> None:
        self._send, self._cache, self._requests, self._dataset = send, cache, requests, dataset
        self._in_flight: dict[bytes, asyncio.Future[Completion | Failure]] = {}
        self.n_sent = 0

    async def complete(self, caption: CaptionInput, attempt: int) -> Completion | Failure:
        key = self._requests.key(caption, attempt)
        if (cached := self._cache.get(key)) is not None:
            return cached
        if key not in self._in_flight:
            task = asyncio.ensure_future(self._request(key, caption, attempt))
            # The first error of a run cancels the other tasks. Retrieving their exceptions here
            # keeps asyncio from logging them.
            task.add_done_callback(lambda done: done.cancelled() or done.exception())
            self._in_flight[key] = task
        return await self._in_flight[key]

    async def _request(
        self, key: bytes, caption: CaptionInput, attempt: int
    ) -> Completion | Failure:
        try:
            self.n_sent += 1
            completion = await self._send(self._requests.body(caption, attempt))
            if isinstance(completion, Failure):
                return completion
            opening = self._requests.opening(caption, attempt)
            completion = replace(completion, text=tidy(opening + completion.text))
            self._cache.put(key, completion, self._dataset)
            return completion
        finally:
            del self._in_flight[key]


def tidy(text: str) -> str:
    """The text on one line, without surrounding white space and quotation marks."""
    line = " ".join(text.split())
    if len(line) > 1 and line[0] == line[-1] == '"':
        line = line[1:-1].strip()
    return line
