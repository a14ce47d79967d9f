"""Samples → how loud, how silent, how clipped a recording is."""

import numpy as np

from flap.audio.config import AudioConfig
from flap.audio.k_weighting import k_weighted

_FULL_SCALE = 0.9999  # what 16-bit converters and limiters stop at
_SILENT_POWER = 10 ** (-60 / 10)
_HOPS_A_SECOND, _HOPS_A_BLOCK = 10, 4  # blocks of 0.4 s that overlap by three quarters
_OFFSET_LUFS = -0.691
_ABSOLUTE_GATE = 10 ** ((-70 - _OFFSET_LUFS) / 10)
_RELATIVE_GATE = 10 ** (-10 / 10)


def peak(samples: np.ndarray) -> float:
    """Largest absolute sample of at least one, without a copy; NaN if one is NaN."""
    return max(float(samples.max()), -float(samples.min()))


def count_clipped(frames_TC: np.ndarray) -> int:
    """Samples in time at which any channel is at full scale."""
    if not frames_TC.size or peak(frames_TC) < _FULL_SCALE:
        return 0
    return int(np.count_nonzero((np.abs(frames_TC) >= _FULL_SCALE).any(axis=1)))


def loudness_lufs(samples: np.ndarray, rate_hz: int) -> float | None:
    """Integrated loudness of mono samples by ITU-R BS.1770-4.

    As pyloudnorm's Meter with pyloudnorm's filters, which would take a third of the stage's time:
    the blocks of 0.4 s from sums over 0.1 s.

    Returns:
        None below 0.4 s, and where every block is below the absolute gate.
    """
    hop = rate_hz // _HOPS_A_SECOND
    n_hops = len(samples) // hop
    if n_hops < _HOPS_A_BLOCK:
        return None
    weighted_HN = k_weighted(samples[: n_hops * hop], rate_hz).view(n_hops, hop)
    powers_H = weighted_HN.square_().mean(1).double().numpy()
    powers_B = np.convolve(powers_H, np.full(_HOPS_A_BLOCK, 1 / _HOPS_A_BLOCK), "valid")
    heard_B = powers_B[powers_B >= _ABSOLUTE_GATE]
    if not len(heard_B):
        return None
    loud_B = heard_B[heard_B > heard_B.mean() * _RELATIVE_GATE]
    return float(_OFFSET_LUFS + 10 * np.log10(loud_B.mean()))


def silence(samples: np.ndarray, config: AudioConfig) -> float:
    """Share of hops of the front end with an RMS below -60 dBFS, 0..1; at least one hop."""
    hop = config.hop_samples
    samples_HN = samples[: len(samples) // hop * hop].reshape(-1, hop)
    powers_H = np.einsum("hn,hn->h", samples_HN, samples_HN) / hop
    return float(np.mean(powers_H < _SILENT_POWER))
