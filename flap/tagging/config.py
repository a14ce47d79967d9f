"""Section `tagging` of params.yaml."""

from pydantic import PositiveInt

from flap.core.config import Section


class TaggingConfig(Section):
    """Which labels of a clip become tags."""

    batch: PositiveInt  # clips per forward pass
    top_k: PositiveInt  # most tags of a clip
    threshold: float  # smallest probability of a tag
