"""Blocks of frames (T, C channels) → mono samples; only one block holds all channels."""

import numpy as np

from flap.audio.levels import count_clipped
from flap.audio.rejected import Rejected

_MIN_RATE_HZ, _MAX_RATE_HZ = 1000, 1_000_000


def check_rate(rate_hz: int) -> None:
    """
    Raises:
        Rejected: the rate is implausible; at such a rate a few seconds could fill the memory.
    """
    if not _MIN_RATE_HZ <= rate_hz <= _MAX_RATE_HZ:
        raise Rejected("unreadable", f"a sample rate of {rate_hz} Hz")


class MonoBlocks:
    """Collects the first `limit` frames of a recording and averages their channels."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._blocks_T: list[np.ndarray] = []
        self.n_frames = self.n_clipped = 0

    @property
    def n_missing(self) -> int:
        """Frames until the limit is reached."""
        return self._limit - self.n_frames

    def append(self, frames_TC: np.ndarray) -> None:
        """Add a block (T, C), float32; frames past the limit are dropped."""
        frames_TC = frames_TC[: self.n_missing]
        self.n_frames += len(frames_TC)
        self.n_clipped += count_clipped(frames_TC)
        self._blocks_T.append(_downmix(frames_TC))

    def samples(self) -> np.ndarray:
        """The mono samples of all blocks, (n_frames,) float32."""
        if len(self._blocks_T) == 1:
            return self._blocks_T[0]
        return np.concatenate([np.zeros(0, np.float32), *self._blocks_T])


def _downmix(frames_TC: np.ndarray) -> np.ndarray:
    """Mean over channels, (T,); for few channels much faster than `mean(axis=1)`."""
    n_channels = frames_TC.shape[1]
    if n_channels == 1:
        return frames_TC[:, 0]
    mono_T = frames_TC[:, 0] + frames_TC[:, 1]
    for channel in range(2, n_channels):
        mono_T += frames_TC[:, channel]
    mono_T *= np.float32(1 / n_channels)
    return mono_T
