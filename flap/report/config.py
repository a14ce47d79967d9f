"""Section `report` of params.yaml."""

from pydantic import NonNegativeInt

from flap.core.config import Section


class ReportConfig(Section):
    samples: NonNegativeInt
    """Captions to show of each dataset: a third the best, a third the worst, a third random."""
    seed: int
    """Which random ones."""
