"""Samples → how loud, how silent, how clipped a recording is."""

from functools import lru_cache
from typing import Any

import numpy as np

from flap.audio.config import AudioConfig

_FULL_SCALE = 0.9999  # what 16-bit converters and limiters stop at
_SILENT_RMS = 10 ** (-60 / 20)
_GATE_SECONDS = 0.4


def peak(samples: np.ndarray) -> float:
    """Largest absolute sample of at least one, without a copy of them."""
    return max(float(samples.max()), -float(samples.min()))


def count_clipped(frames_TC: np.ndarray) -> int:
    """Samples in time at which any channel is at full scale."""
    if not frames_TC.size or peak(frames_TC) < _FULL_SCALE:
        return 0
    return int(np.count_nonzero((np.abs(frames_TC) >= _FULL_SCALE).any(axis=1)))


def loudness_lufs(samples: np.ndarray, rate_hz: int) -> float | None:
    """Integrated loudness of mono samples by ITU-R BS.1770-4, as pyloudnorm measures it.

    Returns:
        None below 0.4 s, which is a gating block, and where every block is below the gate.
    """
    if len(samples) < _GATE_SECONDS * rate_hz:
        return None
    loudness = float(_meter(rate_hz).integrated_loudness(samples))
    return loudness if np.isfinite(loudness) else None


def silence(samples: np.ndarray, config: AudioConfig) -> float:
    """Share of the front end's frames with an RMS below -60 dBFS, 0..1; at least one frame."""
    from librosa.feature import rms

    levels = rms(
        y=samples,
        frame_length=config.frame_samples,
        hop_length=config.hop_samples,
        center=False,
    )
    return float(np.mean(levels < _SILENT_RMS))


@lru_cache
def _meter(rate_hz: int) -> Any:
    from pyloudnorm import Meter

    return Meter(rate_hz)
