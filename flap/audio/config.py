"""Section `audio` of params.yaml."""

from typing import Literal

from pydantic import model_validator

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
    max_megabytes: float

    @model_validator(mode="after")
    def _fits(self) -> "AudioConfig":
        if self.min_seconds * 1000 < self.frame_ms or self.max_seconds < self.min_seconds:
            raise ValueError("need frame_ms <= min_seconds <= max_seconds")
        return self

    @property
    def max_bytes(self) -> int:
        return round(self.max_megabytes * 1_000_000)

    @property
    def frame_samples(self) -> int:
        """Samples of a frame, rounded as torchaudio does."""
        return int(self.sample_rate_hz * self.frame_ms * 0.001)

    @property
    def hop_samples(self) -> int:
        return int(self.sample_rate_hz * self.hop_ms * 0.001)
