"""Section `audio` of params.yaml."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from flap.core.config import Section

Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]


class AudioConfig(Section):
    """Front end of MAViL and AudioMAE; the metadata of every MELS shard holds these values."""

    sample_rate_hz: Annotated[int, Field(ge=1000)]
    n_mels: Annotated[int, Field(ge=3)]
    frame_ms: Positive
    hop_ms: Positive
    window: Literal["hanning", "hamming", "povey"]
    max_seconds: Positive
    min_seconds: Positive
    min_peak: Annotated[float, Field(ge=0)]
    max_megabytes: Positive

    @model_validator(mode="after")
    def _fits(self) -> "AudioConfig":
        if self.min_seconds * 1000 < self.frame_ms or self.max_seconds < self.min_seconds:
            raise ValueError("need frame_ms <= min_seconds <= max_seconds")
        if self.hop_ms > self.frame_ms or self.hop_samples < 1:
            raise ValueError("hop_ms must be at least one sample and at most frame_ms")
        return self

    @property
    def max_bytes(self) -> int:
        return round(self.max_megabytes * 1_000_000)

    @property
    def frame_samples(self) -> int:
        """Samples of a frame, rounded down as torchaudio does."""
        return int(self.sample_rate_hz * self.frame_ms * 0.001)

    @property
    def hop_samples(self) -> int:
        return int(self.sample_rate_hz * self.hop_ms * 0.001)
