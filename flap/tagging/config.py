"""Section `tagging` of params.yaml."""

from pydantic import PositiveInt

from flap.core.config import Section


class TaggingConfig(Section):
    batch: PositiveInt
    top_k: PositiveInt
    threshold: float  # probability from which a label counts
