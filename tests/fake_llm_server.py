"""A server with the OpenAI surface that `captions` uses, for tests; standard library only.

It answers a request with a sentence made of its prompt's last caption and tags. `Behaviour`
makes it fail, hang or forget; every request's prompt is counted. As a script it takes the
arguments of vLLM's server and so stands in for the serving environment.
"""

import json
import re
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

MODEL = "fake-llm"
_ASKED = re.compile(
    r'Describe a situation with (.*) sounds and combine it with (?:the )?"?(.*?)"? together'
)


@dataclass
class Behaviour:
    """What the server does; tests change it while it runs."""

    delay_s: float = 0.001
    fail_status: dict[str, int] = field(default_factory=dict)  # part of the prompt → HTTP status
    fail_first: int = 0  # this many requests get a 500
    hang_on: str | None = None  # part of the prompt that is never answered
    api_key: str | None = None
    asked: Counter[str] = field(default_factory=Counter)
    lock: threading.Lock = field(default_factory=threading.Lock)


def answer_to(prompt: str) -> str:
    """The fake's answer: deterministic, faithful, and naming all tags."""
    tags, caption = _ASKED.findall(prompt)[-1]
    return f" {caption.rstrip('.').lower()} along with {tags.replace(', ', ' and ')}."


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    behaviour: Behaviour

    def do_GET(self) -> None:
        if self.path == "/health":
            return self._reply(200, {})
        return self._reply(200, {"object": "list", "data": [_model()]})

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        behaviour = self.behaviour
        key = self.headers.get("Authorization", "")
        if behaviour.api_key is not None and key != f"Bearer {behaviour.api_key}":
            return self._reply(401, {"error": {"message": "wrong key"}})
        prompt = body["prompt"] if "prompt" in body else body["messages"][-1]["content"]
        last = prompt[prompt.rindex("Describe a situation") :]
        with behaviour.lock:
            behaviour.asked[last] += 1
            behaviour.fail_first -= 1
            failing = behaviour.fail_first >= 0
        time.sleep(behaviour.delay_s)
        if behaviour.hang_on is not None and behaviour.hang_on in last:
            time.sleep(60)
        status = next((s for part, s in behaviour.fail_status.items() if part in last), 200)
        if failing or status != 200:
            return self._reply(500 if failing else status, {"error": {"message": "told to fail"}})
        return self._reply(200, _completion(answer_to(last), chat="messages" in body))

    def _reply(self, status: int, body: dict[str, Any]) -> None:
        data = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, format: str, *args: Any) -> None:
        pass


def _model() -> dict[str, Any]:
    return {"id": MODEL, "object": "model", "created": 0, "owned_by": "tests"}


def _completion(text: str, *, chat: bool) -> dict[str, Any]:
    said = {"message": {"role": "assistant", "content": text}} if chat else {"text": text}
    choice = {"index": 0, "finish_reason": "stop", "logprobs": None, **said}
    kind = "chat.completion" if chat else "text_completion"
    return {"id": "x", "object": kind, "created": 0, "model": MODEL, "choices": [choice]}


@contextmanager
def fake_llm_server(behaviour: Behaviour) -> Iterator[str]:
    """The server in a thread of this process; yields its base URL."""
    handler = type("Handler", (_Handler,), {"behaviour": behaviour})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    server.handle_error = lambda *_: None  # clients that are killed in tests
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}/v1"
    finally:
        server.shutdown()
        server.server_close()


def main(arguments: list[str]) -> None:
    """Serve on the port of vLLM's `--port`; the key is not checked."""
    port = int(arguments[arguments.index("--port") + 1])
    handler = type("Handler", (_Handler,), {"behaviour": Behaviour()})
    ThreadingHTTPServer(("127.0.0.1", port), handler).serve_forever()


if __name__ == "__main__":
    main(sys.argv[1:])
