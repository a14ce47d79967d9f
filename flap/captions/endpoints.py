"""Asking OpenAI-compatible endpoints, with bounded concurrency and retries by kind of error.

| what happens                          | what is done                                    |
|---------------------------------------|-------------------------------------------------|
| 5xx, 429, 408/409, timeout            | tried again, waiting twice as long each time    |
| another 4xx (e.g. prompt too long)    | the request fails, the run goes on              |
| attempts used up                      | the request fails, the run goes on              |
| attempts used up without a connection | `UserError`: there is no server                 |
| 401, 403, 404                         | `UserError`: wrong key or wrong model           |
"""

import asyncio
import itertools
import logging
import os
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

from flap.captions.cache import Answer
from flap.captions.config import CaptionsConfig
from flap.captions.prompt import Prompt
from flap.errors import UserError

if TYPE_CHECKING:
    from openai import AsyncOpenAI

T = TypeVar("T")
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Endpoints:
    """Where to ask: base URLs ending in /v1, one key for all, the served model's name."""

    urls: tuple[str, ...]
    api_key: str
    model: str


@dataclass(frozen=True)
class Patience:
    """How long one request may take, and how often it is tried, doubling the wait."""

    timeout_s: float = 300.0
    attempts: int = 6
    first_wait_s: float = 0.5


def endpoints_of_environment(model: str) -> Endpoints | None:
    """Running servers named by FLAP_LLM_ENDPOINTS (comma-separated), None if it is not set."""
    named = os.environ.get("FLAP_LLM_ENDPOINTS", "")
    urls = tuple(url.strip().rstrip("/") for url in named.split(",") if url.strip())
    if not urls:
        return None
    return Endpoints(urls, os.environ.get("FLAP_LLM_API_KEY", "none"), model)


class Client:
    """Sends one prompt's questions to the endpoints, round robin."""

    def __init__(
        self,
        endpoints: Endpoints,
        prompt: Prompt,
        config: CaptionsConfig,
        patience: Patience | None = None,
    ) -> None:
        from openai import AsyncOpenAI, DefaultAsyncHttpxClient

        self._patience = patience or Patience()
        self._clients = [
            AsyncOpenAI(
                base_url=url,
                api_key=endpoints.api_key,
                max_retries=0,
                timeout=self._patience.timeout_s,
                # A proxy of the environment does not lead to a server on this machine.
                http_client=DefaultAsyncHttpxClient(trust_env="//127.0.0.1" not in url),
            )
            for url in endpoints.urls
        ]
        self._turns = itertools.cycle(range(len(self._clients)))
        self._slots = asyncio.Semaphore(config.concurrency)
        self._model, self._prompt = endpoints.model, prompt
        self._sampling: dict[str, Any] = {
            "temperature": config.temperature,
            "max_tokens": config.max_tokens,
            "seed": config.seed,
            "stop": list(prompt.stop) or None,
        }

    async def check(self) -> None:
        """Raise `UserError` unless every endpoint is there and serves the model by its name."""

        async def served(client: "AsyncOpenAI") -> list[str]:
            return [model.id for model in (await client.models.list()).data]

        for client in self._clients:
            found = await self._persist([client], served)
            if found is None or self._model not in found:
                raise UserError(
                    f"{client.base_url}: serves {found or 'nothing'}, not '{self._model}'; start "
                    f"it with --served-model-name {self._model} on the checkpoint of the stage llm"
                )

    async def ask(self, tags: Sequence[str], caption: str, attempt: int) -> Answer | None:
        """The model's answer; None if the server refuses or fails at this request."""
        prompt = self._prompt
        text, opening = prompt.text(tags, caption), prompt.opening(tags, caption, attempt)

        async def send(client: "AsyncOpenAI") -> Answer:
            if prompt.form == "chat":
                return await self._chat(client, text)
            return await self._complete(client, text, opening)

        async with self._slots:
            first = next(self._turns)
            return await self._persist(self._clients[first:] + self._clients[:first], send)

    async def close(self) -> None:
        for client in self._clients:
            await client.close()

    async def _complete(self, client: "AsyncOpenAI", text: str, opening: str) -> Answer:
        completion = await client.completions.create(
            model=self._model, prompt=f"{text} {opening}".rstrip(), **self._sampling
        )
        choice = completion.choices[0]
        return Answer(tidy(opening + choice.text), choice.finish_reason)

    async def _chat(self, client: "AsyncOpenAI", text: str) -> Answer:
        turns = [("system", self._prompt.instruction), ("user", text)]
        completion = await client.chat.completions.create(
            model=self._model,
            messages=[{"role": role, "content": said} for role, said in turns if said],  # type: ignore[misc]
            **self._sampling,
        )
        choice = completion.choices[0]
        return Answer(tidy(choice.message.content or ""), choice.finish_reason)

    async def _persist(
        self,
        order: Sequence["AsyncOpenAI"],
        send: Callable[["AsyncOpenAI"], Awaitable[T]],
    ) -> T | None:
        """`send` to the endpoints in turn until one answers; None if they fail at it."""
        wait_s = self._patience.first_wait_s
        for attempt in range(self._patience.attempts):
            if attempt:
                await asyncio.sleep(wait_s)
                wait_s *= 2
            client = order[attempt % len(order)]
            try:
                return await send(client)
            except Exception as error:
                kind, problem = _kind(error), error
            if kind == "surroundings":
                raise UserError(f"{client.base_url}: {problem}") from problem
            if kind == "hopeless":
                break
        if kind == "unreachable":
            urls = ", ".join(str(client.base_url) for client in order)
            raise UserError(
                f"no server answers at {urls}; answers so far are kept, run again to go on"
            )
        _log.warning("a request failed: %s", problem)
        return None


def tidy(text: str) -> str:
    """An answer without surrounding white space and quotation marks, on one line."""
    line = " ".join(text.split())
    if len(line) > 1 and line[0] == line[-1] == '"':
        line = line[1:-1].strip()
    return line


def _kind(error: Exception) -> str:
    """Class of an error as in the module's table; what is not an API error is raised again."""
    from openai import APIConnectionError, APIError, APIStatusError, APITimeoutError

    if isinstance(error, APITimeoutError):
        return "passing"
    if isinstance(error, APIConnectionError):
        return "unreachable"
    if isinstance(error, APIStatusError):
        if error.status_code in (401, 403, 404):
            return "surroundings"
        passing = error.status_code >= 500 or error.status_code in (408, 409, 429)
        return "passing" if passing else "hopeless"
    if isinstance(error, APIError):  # an answer that is none
        return "passing"
    raise error
