"""Section `flops` of params.yaml."""

from pydantic import PositiveInt

from flap.core.config import Section
from flap.model.masking import Ratio


class FlopsConfig(Section):
    batch: PositiveInt
    ratios: tuple[Ratio, ...]  # 1-D: of the tokens; 2-D: of the time steps and of the frequencies
