"""A fake server with the OpenAI routes that `captions` uses, for tests and benchmarks.

Its answer is a sentence made from the last caption and tags of the prompt. `Behaviour` makes it
slow, fail or hang, and counts the requests by prompt. As a script it takes the arguments of
vLLM's server, and so replaces the serving environment.
"""

import asyncio
import random
import re
import sys
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web

MODEL = "fake-llm"
_REQUEST = re.compile(
    r'Describe a situation with (.*) sounds and combine it with (?:the )?"?(.*?)"? together',
    re.DOTALL,
)


@dataclass
class Behaviour:
    """What the server does, and what it saw; tests may change it while the server runs."""

    delay_s: float = 0.001
    jitter: float = 0.0  # share of the delay, by which it varies in both directions
    fail_status: dict[str, int] = field(default_factory=dict)  # part of the prompt → HTTP status
    fail_first: int = 0  # number of requests that get a 500
    busy_first: int = 0  # number of requests that get a 429 with Retry-After
    reply: dict[str, str] = field(default_factory=dict)  # part of the prompt → response body
    hang_on: str | None = None  # part of the prompt that is never answered
    api_key: str | None = None  # None: any key
    requests: Counter[str] = field(default_factory=Counter)  # by request text
    in_flight: int = 0
    max_in_flight: int = 0


def answer_to(prompt: str) -> str:
    """A deterministic sentence with the caption and all tags."""
    tags, caption = _REQUEST.findall(prompt)[-1]
    return f" {caption.rstrip('.').lower()} along with {tags.replace(', ', ' and ')}."


class _Server:
    def __init__(self, behaviour: Behaviour) -> None:
        self._behaviour = behaviour

    def app(self) -> web.Application:
        app = web.Application(client_max_size=1 << 26)
        app.router.add_get("/health", self._health)
        app.router.add_get("/v1/models", self._models)
        app.router.add_post("/v1/completions", self._complete)
        app.router.add_post("/v1/chat/completions", self._complete)
        return app

    async def _health(self, _: web.Request) -> web.Response:
        return web.json_response({})

    async def _models(self, request: web.Request) -> web.Response:
        if not self._is_allowed(request):
            return _error(401, "wrong key")
        model = {"id": MODEL, "object": "model", "created": 0, "owned_by": "tests"}
        return web.json_response({"object": "list", "data": [model]})

    async def _complete(self, request: web.Request) -> web.Response:
        behaviour = self._behaviour
        behaviour.in_flight += 1
        behaviour.max_in_flight = max(behaviour.max_in_flight, behaviour.in_flight)
        try:
            return await self._answer(request)
        finally:
            behaviour.in_flight -= 1

    async def _answer(self, request: web.Request) -> web.Response:
        behaviour, body = self._behaviour, await request.json()
        if not self._is_allowed(request):
            return _error(401, "wrong key")
        prompt = body["prompt"] if "prompt" in body else body["messages"][-1]["content"]
        last = prompt[prompt.rindex("Describe a situation") :]
        behaviour.requests[last] += 1
        behaviour.fail_first -= 1
        behaviour.busy_first -= 1
        if behaviour.fail_first >= 0:
            return _error(500, "the test asked for a failure")
        if behaviour.busy_first >= 0:
            return _error(429, "busy", {"Retry-After": "0"})
        await asyncio.sleep(behaviour.delay_s * (1 + random.uniform(-1, 1) * behaviour.jitter))
        if behaviour.hang_on is not None and behaviour.hang_on in last:
            await asyncio.sleep(60)
        for part, status in behaviour.fail_status.items():
            if part in last:
                return _error(status, f"the test asked for status {status}")
        for part, body_text in behaviour.reply.items():
            if part in last:
                return web.Response(text=body_text, content_type="application/json")
        return web.json_response(_completion(answer_to(last), chat="messages" in body))

    def _is_allowed(self, request: web.Request) -> bool:
        key = self._behaviour.api_key
        return key is None or request.headers.get("Authorization", "") == f"Bearer {key}"


def _error(status: int, message: str, headers: dict[str, str] | None = None) -> web.Response:
    return web.json_response({"error": {"message": message}}, status=status, headers=headers)


def _completion(text: str, *, chat: bool) -> dict[str, Any]:
    content = {"message": {"role": "assistant", "content": text}} if chat else {"text": text}
    choice = {"index": 0, "finish_reason": "stop", "logprobs": None, **content}
    kind = "chat.completion" if chat else "text_completion"
    usage = {"prompt_tokens": 10, "completion_tokens": len(text.split())}
    answer = {"id": "x", "object": kind, "created": 0, "model": MODEL, "choices": [choice]}
    return answer | {"usage": usage}


async def _start(behaviour: Behaviour, port: int) -> tuple[web.AppRunner, int]:
    runner = web.AppRunner(_Server(behaviour).app(), access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", port)
    await site.start()
    return runner, runner.addresses[0][1]


@contextmanager
def fake_llm_server(behaviour: Behaviour, port: int = 0) -> Iterator[str]:
    """Run the server in a thread of this process; yields its base URL."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    runner, port = asyncio.run_coroutine_threadsafe(_start(behaviour, port), loop).result()
    try:
        yield f"http://127.0.0.1:{port}/v1"
    finally:
        asyncio.run_coroutine_threadsafe(runner.cleanup(), loop).result()
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


def main(arguments: list[str]) -> None:
    """Serve on `--port`, as vLLM does; answer after about `--delay` seconds; accept any key."""
    port = int(arguments[arguments.index("--port") + 1])
    delay_s = float(arguments[arguments.index("--delay") + 1]) if "--delay" in arguments else 0.001
    app = _Server(Behaviour(delay_s, jitter=0.5)).app()
    web.run_app(app, host="127.0.0.1", port=port, access_log=None, print=None)


if __name__ == "__main__":
    main(sys.argv[1:])
