"""Mono samples at one rate → at another. The project's one resampler."""

import numpy as np
import soxr

RESAMPLER = "soxr HQ"


def resample(samples: np.ndarray, from_hz: int, to_hz: int) -> np.ndarray:
    """(n,) float32 → (about n x to_hz / from_hz,) float32; the same array for equal rates."""
    if from_hz == to_hz:
        return samples
    return soxr.resample(samples, from_hz, to_hz, quality="HQ")
