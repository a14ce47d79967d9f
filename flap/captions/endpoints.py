"""The servers that are asked, and whose turn it is: the least busy of those that are up."""

import os
import time
from dataclasses import dataclass, field

_LONGEST_REST_S = 30.0


@dataclass(frozen=True)
class Endpoints:
    """Where to ask: base URLs ending in /v1, one key for all, the served model's name."""

    urls: tuple[str, ...]
    api_key: str
    model: str


def endpoints_of_environment(model: str) -> Endpoints | None:
    """Running servers named by FLAP_LLM_ENDPOINTS (comma-separated), None if it is not set."""
    named = os.environ.get("FLAP_LLM_ENDPOINTS", "")
    urls = tuple(url.strip().rstrip("/") for url in named.split(",") if url.strip())
    if not urls:
        return None
    return Endpoints(urls, os.environ.get("FLAP_LLM_API_KEY", "none"), model)


@dataclass
class Endpoint:
    """One server, as the requests so far have found it."""

    url: str
    in_flight: int = 0
    _failures: int = field(default=0, repr=False)  # since its last answer
    _rests_until: float = field(default=0.0, repr=False)

    @property
    def is_local(self) -> bool:
        return "//127.0.0.1" in self.url or "//localhost" in self.url

    @property
    def rest_s(self) -> float:
        """Seconds until it should be asked again, 0 if it is up."""
        return max(0.0, self._rests_until - time.monotonic())

    def answered(self) -> None:
        self._failures, self._rests_until = 0, 0.0

    def failed(self, first_wait_s: float, told_s: float | None) -> None:
        """Let it rest: as long as it told, or twice as long each time.

        What fails while it rests was sent before, and is no news.
        """
        if self.rest_s:
            return
        wait_s = first_wait_s * 2**self._failures if told_s is None else told_s
        self._failures += 1
        self._rests_until = time.monotonic() + min(wait_s, _LONGEST_REST_S)


def next_endpoint(endpoints: list[Endpoint]) -> Endpoint:
    """The least busy one that is up; if all rest, the one that is up first."""
    return min(endpoints, key=lambda one: (one.rest_s, one.in_flight))
