"""Requests → answers of OpenAI-compatible servers, retried by kind of error.

| what happens                                     | what is done                               |
|--------------------------------------------------|--------------------------------------------|
| 5xx, 429, 408, 409, 425, timeout, half a JSON,   | tried again, on another server if one is   |
| no choice, a broken connection                   | up, waiting as told or twice as long       |
| another 4xx (e.g. prompt too long)               | the request fails, the run goes on         |
| attempts used up                                 | the request fails, the run goes on         |
| attempts used up without any connection          | `UserError`: there is no server            |
| 401, 403, 404                                    | `UserError`: wrong key or wrong model      |

By aiohttp: the official client takes seven times as long for a request.
"""

import asyncio
import json
import logging
import time
from dataclasses import dataclass
from typing import Any

import aiohttp

from flap.captions.cache import Answer
from flap.captions.endpoints import Endpoint, Endpoints, next_endpoint
from flap.core.errors import UserError, first_line

_PASSING = frozenset({408, 409, 425, 429})
_SURROUNDINGS = frozenset({401, 403, 404})
_MESSAGE_CHARACTERS = 300
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Failure:
    """A request that came to nothing, and what the server said."""

    error: str


@dataclass(frozen=True)
class Patience:
    """How long one request may take, and how often it is tried."""

    timeout_s: float = 300.0
    attempts: int = 6
    first_wait_s: float = 0.5


class _PassingError(Exception):
    """Worth another try, after `wait_s` if the server says so."""

    def __init__(self, message: str, wait_s: float | None = None) -> None:
        super().__init__(message)
        self.wait_s = wait_s


class _HopelessError(Exception):
    """The request will never be answered."""


class Client:
    """Asks the endpoints, at most `concurrency` requests at a time; an async context manager."""

    def __init__(
        self, endpoints: Endpoints, concurrency: int, patience: Patience | None = None
    ) -> None:
        self._named, self._patience = endpoints, patience or Patience()
        self._endpoints = [Endpoint(url) for url in endpoints.urls]
        self._slots = asyncio.Semaphore(concurrency)
        self._sessions: dict[bool, aiohttp.ClientSession] = {}

    async def __aenter__(self) -> "Client":
        """
        Raises:
            UserError: no endpoint is there, or one serves another model.
        """
        timeout = aiohttp.ClientTimeout(self._patience.timeout_s)
        headers = {"Authorization": f"Bearer {self._named.api_key}"}
        for is_local in (True, False):  # a proxy of the environment leads to no local server
            self._sessions[is_local] = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(limit=0),
                timeout=timeout,
                headers=headers,
                trust_env=not is_local,
            )
        try:
            await self._check()
        except BaseException:
            await self._close()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._close()

    async def ask(self, body: dict[str, Any]) -> Answer | Failure:
        """The answer to a completion (`prompt`) or a chat (`messages`), as the server words it.

        Raises:
            UserError: as in the module's table.
        """
        route = "chat/completions" if "messages" in body else "completions"
        start = time.monotonic()
        async with self._slots:
            found = await self._persist("POST", route, body | {"model": self._named.model})
        if isinstance(found, Failure):
            return found
        choice, usage = found["choices"][0], found.get("usage") or {}
        text = choice["message"]["content"] if "messages" in body else choice["text"]
        return Answer(
            text or "",
            choice.get("finish_reason") or "",
            usage.get("prompt_tokens") or 0,
            usage.get("completion_tokens") or 0,
            time.monotonic() - start,
        )

    async def _check(self) -> None:
        """Every endpoint that answers must serve the model by its name; one must answer."""
        for endpoint in self._endpoints:
            found = await self._persist("GET", "models", None, [endpoint], is_needed=False)
            if isinstance(found, Failure):
                _log.warning("%s: %s; others are asked meanwhile", endpoint.url, found.error)
                continue
            served = [model.get("id") for model in found.get("data", [])]
            if self._named.model not in served:
                raise UserError(
                    f"{endpoint.url}: serves {served or 'nothing'}, not '{self._named.model}'; "
                    f"start it with --served-model-name {self._named.model} on the checkpoint of "
                    "the stage llm"
                )
        if all(endpoint.rest_s for endpoint in self._endpoints):
            raise self._nobody()

    async def _persist(
        self,
        method: str,
        route: str,
        body: dict[str, Any] | None,
        endpoints: list[Endpoint] | None = None,
        *,
        is_needed: bool = True,
    ) -> dict[str, Any] | Failure:
        """The JSON of the first endpoint that answers."""
        problem: Exception = _PassingError("not tried")
        for _ in range(self._patience.attempts):
            endpoint = next_endpoint(endpoints or self._endpoints)
            endpoint.in_flight += 1  # at once, for others choose while this one waits
            try:
                await asyncio.sleep(endpoint.rest_s)
                found = await self._request(endpoint, method, route, body)
                endpoint.answered()
                return found
            except _HopelessError as error:
                endpoint.answered()
                return Failure(str(error))
            except (_PassingError, aiohttp.ClientError, TimeoutError) as error:
                problem = error
                endpoint.failed(self._patience.first_wait_s, getattr(error, "wait_s", None))
            finally:
                endpoint.in_flight -= 1
        if is_needed and isinstance(problem, aiohttp.ClientConnectorError):
            raise self._nobody()
        message = f"{type(problem).__name__} {first_line(problem)}".removeprefix("_PassingError ")
        return Failure(message[:_MESSAGE_CHARACTERS])

    async def _request(
        self, endpoint: Endpoint, method: str, route: str, body: dict[str, Any] | None
    ) -> dict[str, Any]:
        session = self._sessions[endpoint.is_local]
        async with session.request(method, f"{endpoint.url}/{route}", json=body) as response:
            content = await response.read()
            if response.status in _SURROUNDINGS:
                raise UserError(f"{endpoint.url}: {response.status}: {_message(content)}")
            if response.status >= 500 or response.status in _PASSING:
                wait = response.headers.get("Retry-After", "")
                told_s = float(wait) if wait.isdecimal() else None
                raise _PassingError(f"{response.status}: {_message(content)}", told_s)
            if response.status != 200:
                raise _HopelessError(f"{response.status}: {_message(content)}")
        return _answer_of(content, has_choices=body is not None)

    def _nobody(self) -> UserError:
        urls = ", ".join(self._named.urls)
        return UserError(
            f"no server answers at {urls}; answers so far are kept, run again to go on"
        )

    async def _close(self) -> None:
        for session in self._sessions.values():
            await session.close()


def _answer_of(content: bytes, *, has_choices: bool) -> dict[str, Any]:
    """The JSON of an answer, if it is one."""
    try:
        found = json.loads(content)
    except ValueError:
        raise _PassingError(f"no JSON: {content[:80]!r}") from None
    if not isinstance(found, dict):
        raise _PassingError("no JSON object")
    if has_choices:
        choice = next(iter(found.get("choices") or []), None)
        if not isinstance(choice, dict) or not {"text", "message"} & set(choice):
            raise _PassingError("an answer without a choice")
    return found


def _message(content: bytes) -> str:
    """What an error's body says, in one line."""
    text = content.decode(errors="replace")
    return " ".join(text.split())[:_MESSAGE_CHARACTERS]
