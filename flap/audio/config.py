"""Section `audio` of params.yaml."""

from typing import Literal

from flap.config import Section


class AudioConfig(Section):
    """Front end of MAViL/AudioMAE; its values travel in the metadata of every MELS shard."""

    sample_rate_hz: int
    n_mels: int
    frame_ms: float
    hop_ms: float
    window: Literal["hanning", "hamming", "povey"]
    max_seconds: float
    min_seconds: float
    min_peak: float
