"""Section `report` of params.yaml."""

from pydantic import NonNegativeInt

from flap.core.config import Section


class ReportConfig(Section):
    samples: NonNegativeInt
    """Captions to show for each dataset: one third best, one third worst, one third random."""
    seed: int
    """Of the random choice."""
