"""The exception for a recording that cannot be used: the recording becomes a row of REJECTS."""

from flap.core.schemas import REJECT_REASONS


class Rejected(Exception):
    """Holds a reason of `REJECT_REASONS` and a description of the fault."""

    def __init__(self, reason: str, detail: str) -> None:
        assert reason in REJECT_REASONS
        super().__init__(reason, detail)  # pickle calls the class with these two arguments
        self.reason, self.detail = reason, detail

    def __str__(self) -> str:
        return f"{self.reason}: {self.detail}"
