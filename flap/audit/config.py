"""Section `audit` of params.yaml."""

from pydantic import PositiveInt

from flap.core.config import Section


class AuditConfig(Section):
    drop_leaks: bool
    """Whether training leaves out clips that are also in a val or test split."""
    drop_duplicates: bool
    """Whether training keeps only the first copy of a recording."""
    max_caption_words: PositiveInt
    """A caption with more words is a finding."""
