"""Section `tagging` of params.yaml."""

from flap.config import Section


class TaggingConfig(Section):
    batch: int
    top_k: int
    threshold: float  # probability from which a label counts
