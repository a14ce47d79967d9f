"""Section `flops` of params.yaml."""

from pydantic import PositiveInt

from flap.core.config import Section
from flap.model.config import Ratio


class FlopsConfig(Section):
    batch: PositiveInt  # windows in a forward pass
    ratios: tuple[Ratio, ...]
    """Mask ratios; 1-D: of the tokens; 2-D: of the time steps and of the frequency patches."""
