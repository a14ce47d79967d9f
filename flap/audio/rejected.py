"""The one exception for a recording that cannot be used: it becomes a row of REJECTS."""

from flap.core.schemas import REJECT_REASONS


class Rejected(Exception):
    """Carries one of the closed set of reasons, and in words what was found."""

    def __init__(self, reason: str, detail: str) -> None:
        assert reason in REJECT_REASONS
        super().__init__(reason, detail)  # both, so that it can travel between processes
        self.reason, self.detail = reason, detail

    def __str__(self) -> str:
        return f"{self.reason}: {self.detail}"
