"""The LLM servers, and the choice of one for a request: the least busy server that is up."""

import os
import time
from dataclasses import dataclass, field

_MAX_BACKOFF_S = 30.0


@dataclass(frozen=True)
class Endpoints:
    """Base URLs that end in /v1, the API key for all of them, and the served model's name."""

    urls: tuple[str, ...]
    api_key: str
    model: str


def endpoints_from_environment(model: str) -> Endpoints | None:
    """The servers in FLAP_LLM_ENDPOINTS (comma-separated URLs); None if it is not set."""
    value = os.environ.get("FLAP_LLM_ENDPOINTS", "")
    urls = tuple(url.strip().rstrip("/") for url in value.split(",") if url.strip())
    if not urls:
        return None
    return Endpoints(urls, os.environ.get("FLAP_LLM_API_KEY", "none"), model)


@dataclass
class Endpoint:
    """One server, with its load and its recent failures."""

    url: str
    in_flight: int = 0
    _failures: int = field(default=0, repr=False)  # since the last success
    _backoff_until: float = field(default=0.0, repr=False)  # by time.monotonic()

    @property
    def is_local(self) -> bool:
        return "//127.0.0.1" in self.url or "//localhost" in self.url

    @property
    def backoff_s(self) -> float:
        """Seconds until the next request should be sent; 0 if the server is up."""
        return max(0.0, self._backoff_until - time.monotonic())

    def record_success(self) -> None:
        self._failures, self._backoff_until = 0, 0.0

    def record_failure(self, first_wait_s: float, retry_after_s: float | None) -> None:
        """Back off: for the time that the server asked for, or else exponentially.

        A failure during a backoff belongs to a request that was sent earlier, and is ignored.
        """
        if self.backoff_s:
            return
        wait_s = first_wait_s * 2**self._failures if retry_after_s is None else retry_after_s
        self._failures += 1
        self._backoff_until = time.monotonic() + min(wait_s, _MAX_BACKOFF_S)


def choose_endpoint(endpoints: list[Endpoint]) -> Endpoint:
    """The least busy endpoint that is up; if none is up, the one whose backoff ends first."""
    return min(endpoints, key=lambda endpoint: (endpoint.backoff_s, endpoint.in_flight))
