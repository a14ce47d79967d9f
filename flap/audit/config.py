"""Section `audit` of params.yaml."""

from pydantic import PositiveInt

from flap.core.config import Section


class AuditConfig(Section):
    drop_leaks: bool
    """Whether the training splits lose the clips that stand in a val or test split too."""
    drop_duplicates: bool
    """Whether the training splits keep only the first copy of a recording."""
    max_caption_words: PositiveInt
    """A caption with more is a finding."""
