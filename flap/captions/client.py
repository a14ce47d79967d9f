"""Requests to OpenAI-compatible servers → completions, with retries that depend on the error.

| what happens                                     | reaction                                   |
|--------------------------------------------------|--------------------------------------------|
| 5xx, 429, 408, 409, 425, timeout, broken         | retry, on another server if one is up,     |
| connection, invalid JSON, an answer without a    | after `Retry-After` or an exponential      |
| choice                                           | backoff                                    |
| another 4xx (e.g. prompt too long)               | the request fails, the run goes on         |
| all attempts failed                              | the request fails, the run goes on         |
| all attempts failed, the last one to connect     | `UserError`: no server answers             |
| 401, 403, 404                                    | `UserError`: wrong key or wrong model      |

It uses aiohttp, because the official client takes seven times as long for a request.
"""

import asyncio
import json
import logging
import time
from dataclasses import dataclass
from typing import Any

import aiohttp

from flap.captions.cache import Completion
from flap.captions.endpoints import Endpoint, Endpoints, choose_endpoint
from flap.core.errors import UserError, first_line

_TRANSIENT_STATUSES = frozenset({408, 409, 425, 429})
_CONFIGURATION_STATUSES = frozenset({401, 403, 404})
_MAX_MESSAGE_CHARACTERS = 300
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Failure:
    """A request without a completion."""

    error: str  # what the server said, or what the connection raised


@dataclass(frozen=True)
class RetryPolicy:
    """Limits of one request."""

    timeout_s: float = 300.0  # of one attempt
    attempts: int = 6
    first_wait_s: float = 0.5  # backoff after the first failure of a server


class _TransientError(Exception):
    """An error after which a retry may succeed."""

    def __init__(self, message: str, retry_after_s: float | None = None) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s  # None: the server does not say


class _PermanentError(Exception):
    """An error that every retry would repeat."""


class Client:
    """Sends at most `concurrency` requests at a time; an async context manager."""

    def __init__(
        self, endpoints: Endpoints, concurrency: int, policy: RetryPolicy | None = None
    ) -> None:
        self._config, self._policy = endpoints, policy or RetryPolicy()
        self._endpoints = [Endpoint(url) for url in endpoints.urls]
        self._slots = asyncio.Semaphore(concurrency)
        self._sessions: dict[bool, aiohttp.ClientSession] = {}

    async def __aenter__(self) -> "Client":
        """
        Raises:
            UserError: no endpoint answers, or one of them serves another model.
        """
        timeout = aiohttp.ClientTimeout(self._policy.timeout_s)
        headers = {"Authorization": f"Bearer {self._config.api_key}"}
        for is_local in (True, False):  # a proxy from the environment cannot reach local servers
            self._sessions[is_local] = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(limit=0),
                timeout=timeout,
                headers=headers,
                trust_env=not is_local,
            )
        try:
            await self._check_endpoints()
        except BaseException:
            await self._close()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._close()

    async def complete(self, body: dict[str, Any]) -> Completion | Failure:
        """The completion of a request.

        Args:
            body: the request without its model; has `prompt`, or `messages` for a chat.

        Raises:
            UserError: no server answers, or a server refuses the key or the model.
        """
        route = "chat/completions" if "messages" in body else "completions"
        request = body | {"model": self._config.model}
        async with self._slots:
            start = time.monotonic()
            response = await self._request_with_retries("POST", route, request)
            seconds = time.monotonic() - start
        if isinstance(response, Failure):
            return response
        choice, usage = response["choices"][0], response.get("usage") or {}
        text = choice["message"]["content"] if "messages" in body else choice["text"]
        return Completion(
            text or "",
            choice.get("finish_reason") or "",
            usage.get("prompt_tokens") or 0,
            usage.get("completion_tokens") or 0,
            seconds,
        )

    async def _check_endpoints(self) -> None:
        """Raise unless an endpoint answers and all that answer serve the model."""
        for endpoint in self._endpoints:
            response = await self._request_with_retries(
                "GET", "models", None, [endpoint], is_needed=False
            )
            if isinstance(response, Failure):
                _log.warning("%s: %s; the other servers are used", endpoint.url, response.error)
                continue
            served = [model.get("id") for model in response.get("data", [])]
            if self._config.model not in served:
                raise UserError(
                    f"{endpoint.url}: serves {served or 'nothing'}, not '{self._config.model}'; "
                    f"start it with --served-model-name {self._config.model} and the checkpoint "
                    "that the stage llm wrote"
                )
        if all(endpoint.backoff_s for endpoint in self._endpoints):
            raise self._no_server_error()

    async def _request_with_retries(
        self,
        method: str,
        route: str,
        body: dict[str, Any] | None,
        endpoints: list[Endpoint] | None = None,
        *,
        is_needed: bool = True,
    ) -> dict[str, Any] | Failure:
        """The JSON answer of the first endpoint that gives one.

        Args:
            is_needed: raise a `UserError` if no connection is possible.
        """
        last_error: Exception = _TransientError("not tried")
        for _ in range(self._policy.attempts):
            endpoint = choose_endpoint(endpoints or self._endpoints)
            endpoint.in_flight += 1  # before the wait, during which other requests choose
            try:
                await asyncio.sleep(endpoint.backoff_s)
                response = await self._request(endpoint, method, route, body)
                endpoint.record_success()
                return response
            except _PermanentError as error:
                endpoint.record_success()
                return Failure(str(error))
            except (_TransientError, aiohttp.ClientError, TimeoutError) as error:
                last_error = error
                retry_after_s = getattr(error, "retry_after_s", None)
                endpoint.record_failure(self._policy.first_wait_s, retry_after_s)
            finally:
                endpoint.in_flight -= 1
        if is_needed and isinstance(last_error, aiohttp.ClientConnectorError):
            raise self._no_server_error()
        message = first_line(last_error)
        if not isinstance(last_error, _TransientError):
            message = f"{type(last_error).__name__} {message}"
        return Failure(message[:_MAX_MESSAGE_CHARACTERS])

    async def _request(
        self, endpoint: Endpoint, method: str, route: str, body: dict[str, Any] | None
    ) -> dict[str, Any]:
        session = self._sessions[endpoint.is_local]
        async with session.request(method, f"{endpoint.url}/{route}", json=body) as response:
            content = await response.read()
            if response.status in _CONFIGURATION_STATUSES:
                raise UserError(f"{endpoint.url}: {response.status}: {_message(content)}")
            if response.status >= 500 or response.status in _TRANSIENT_STATUSES:
                value = response.headers.get("Retry-After", "")
                retry_after_s = float(value) if value.isdecimal() else None
                raise _TransientError(f"{response.status}: {_message(content)}", retry_after_s)
            if response.status != 200:
                raise _PermanentError(f"{response.status}: {_message(content)}")
        return _parse(content, has_choices=body is not None)

    def _no_server_error(self) -> UserError:
        urls = ", ".join(self._config.urls)
        return UserError(
            f"no server answers at {urls}; answers so far are kept, run again to go on"
        )

    async def _close(self) -> None:
        for session in self._sessions.values():
            await session.close()


def _parse(content: bytes, *, has_choices: bool) -> dict[str, Any]:
    """The JSON object of an answer.

    Raises:
        _TransientError: the answer is no JSON object, or lacks a choice.
    """
    try:
        answer = json.loads(content)
    except ValueError:
        raise _TransientError(f"no JSON: {content[:80]!r}") from None
    if not isinstance(answer, dict):
        raise _TransientError("no JSON object")
    if has_choices:
        choice = next(iter(answer.get("choices") or []), None)
        if not isinstance(choice, dict) or not {"text", "message"} & set(choice):
            raise _TransientError("an answer without a choice")
    return answer


def _message(content: bytes) -> str:
    """The body of an error response, on one line."""
    text = content.decode(errors="replace")
    return " ".join(text.split())[:_MAX_MESSAGE_CHARACTERS]
