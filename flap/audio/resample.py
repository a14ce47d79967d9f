"""Mono samples at one rate → mono samples at another. All stages use this resampler."""

import numpy as np
import soxr

RESAMPLER = "soxr HQ"


def resample(samples: np.ndarray, from_hz: int, to_hz: int) -> np.ndarray:
    """(n,) float32 → (about n * to_hz / from_hz,) float32; equal rates return the same array."""
    if from_hz == to_hz:
        return samples
    return soxr.resample(samples, from_hz, to_hz, quality="HQ")
