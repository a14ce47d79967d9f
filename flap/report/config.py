"""Section `report` of params.yaml."""

from pydantic import NonNegativeInt

from flap.config import Section


class ReportConfig(Section):
    samples: NonNegativeInt
    """Captions to show, half of them kept, half rejected."""
    seed: int
    """Which ones."""
