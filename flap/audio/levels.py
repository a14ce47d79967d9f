"""Samples → loudness, silence, clipping and peak of a recording.

Letters: N samples, H hops, B gating blocks.
"""

from functools import lru_cache

import numpy as np
from pyloudnorm import IIRfilter
from scipy.signal import sosfilt

from flap.audio.config import AudioConfig

_FULL_SCALE = 0.9999  # 16-bit converters and limiters stop here, just below 1
_SILENT_POWER = 10 ** (-60 / 10)
_HOPS_PER_SECOND, _HOPS_PER_BLOCK = 10, 4  # blocks of 0.4 s that overlap by 75 %
_OFFSET_LUFS = -0.691
_ABSOLUTE_GATE = 10 ** ((-70 - _OFFSET_LUFS) / 10)
_RELATIVE_GATE = 10 ** (-10 / 10)


def peak(samples: np.ndarray) -> float:
    """Largest absolute value of one or more samples; NaN if any sample is NaN. Makes no copy."""
    return max(float(samples.max()), -float(samples.min()))


def count_clipped(frames_TC: np.ndarray) -> int:
    """Number of frames of (T, C) in which any channel is at full scale."""
    if not frames_TC.size or peak(frames_TC) < _FULL_SCALE:
        return 0
    return int(np.count_nonzero((np.abs(frames_TC) >= _FULL_SCALE).any(axis=1)))


def loudness_lufs(samples: np.ndarray, rate_hz: int) -> float | None:
    """Integrated loudness of mono samples (N,) by ITU-R BS.1770-4, in LUFS.

    The result is that of pyloudnorm's `Meter`, in less time: block powers are sums of the powers
    of hops of 0.1 s. A last hop that is incomplete does not count.

    Returns:
        None for less than 0.4 s, and if every block is below the absolute gate of -70 LUFS.
    """
    hop = rate_hz // _HOPS_PER_SECOND
    n_hops = len(samples) // hop
    if n_hops < _HOPS_PER_BLOCK:
        return None
    weighted_HN = k_weighted(samples[: n_hops * hop], rate_hz).reshape(n_hops, hop)
    powers_H = np.einsum("hn,hn->h", weighted_HN, weighted_HN) / hop
    powers_B = np.convolve(powers_H, np.full(_HOPS_PER_BLOCK, 1 / _HOPS_PER_BLOCK), "valid")
    audible_B = powers_B[powers_B >= _ABSOLUTE_GATE]
    if not len(audible_B):
        return None
    gated_B = audible_B[audible_B > audible_B.mean() * _RELATIVE_GATE]
    return float(_OFFSET_LUFS + 10 * np.log10(gated_B.mean()))


def k_weighted(samples: np.ndarray, rate_hz: int) -> np.ndarray:
    """K-weighted samples (N,) of ITU-R BS.1770-4, float64; the filter starts from silence."""
    return np.asarray(sosfilt(_k_weighting(rate_hz), samples))


@lru_cache
def _k_weighting(rate_hz: int) -> np.ndarray:
    """Second-order sections (2, 6): pyloudnorm's high shelf and high pass."""
    shelf = IIRfilter(4.0, 1 / np.sqrt(2), 1500.0, rate_hz, "high_shelf")
    high_pass = IIRfilter(0.0, 0.5, 38.0, rate_hz, "high_pass")
    return np.array([[*section.b, *section.a] for section in (shelf, high_pass)])


def silence(samples: np.ndarray, config: AudioConfig) -> float:
    """Share of the front end's hops with an RMS below -60 dBFS, 0..1; needs one hop or more."""
    hop = config.hop_samples
    samples_HN = samples[: len(samples) // hop * hop].reshape(-1, hop)
    powers_H = np.einsum("hn,hn->h", samples_HN, samples_HN) / hop
    return float(np.mean(powers_H < _SILENT_POWER))
