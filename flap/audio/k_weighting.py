"""The filter that ITU-R BS.1770-4 weighs loudness with, in blocks, as products of matrices.

The filter is linear. So what it makes of a block, and the four numbers it remembers after it, are
a matrix times the block and the four numbers remembered before. This is twice as fast as a loop
over samples, which waits for each sample's result.

Letters: N samples, M stretches of a tenth of a second, B blocks of a stretch, L samples of a
block, S = 4 numbers that the filter remembers.
"""

from functools import lru_cache

import numpy as np

_STRETCH_S = 0.1  # the filter forgets in it: what is left of an impulse is below 1e-9
_BLOCKS = 20  # of a stretch
_SECTIONS, _SECTION_STATE = 2, 2
_STATE = _SECTIONS * _SECTION_STATE


def k_weighted(samples: np.ndarray, rate_hz: int) -> np.ndarray:
    """K-weighted samples, (N,) float32 → (N,) float32, from silence on.

    As scipy's `sosfilt` with pyloudnorm's coefficients, to float32's precision.
    """
    block = _block_samples(rate_hz)
    matrix = _block_filter(rate_hz)
    n_stretches = -(-len(samples) // (_BLOCKS * block))
    padded_N = np.zeros(n_stretches * _BLOCKS * block, np.float32)
    padded_N[: len(samples)] = samples
    product = padded_N.reshape(-1, block) @ matrix[:block]
    filtered_MBL, added_MBS = np.split(product.reshape(n_stretches, _BLOCKS, -1), [block], axis=2)

    state_MS = np.zeros((n_stretches, _STATE), np.float32)
    for number in range(_BLOCKS):
        state_MS = state_MS @ matrix[block:, block:] + added_MBS[:, number]
    state_MS = np.concatenate([np.zeros((1, _STATE), np.float32), state_MS[:-1]])
    before_MBS = np.empty_like(added_MBS)
    for number in range(_BLOCKS):
        before_MBS[:, number] = state_MS
        state_MS = state_MS @ matrix[block:, block:] + added_MBS[:, number]
    filtered_MBL += before_MBS @ matrix[block:, :block]
    return filtered_MBL.reshape(-1)[: len(samples)]


def _block_samples(rate_hz: int) -> int:
    return max(1, round(rate_hz * _STRETCH_S / _BLOCKS))


@lru_cache
def _block_filter(rate_hz: int) -> np.ndarray:
    """(L + S, L + S): rows are a block and the state before it, columns the same after it."""
    from pyloudnorm import IIRfilter
    from scipy.signal import sosfilt

    shelf = IIRfilter(4.0, 1 / np.sqrt(2), 1500.0, rate_hz, "high_shelf")
    high_pass = IIRfilter(0.0, 0.5, 38.0, rate_hz, "high_pass")
    sections = np.array([[*section.b, *section.a] for section in (shelf, high_pass)])
    block = _block_samples(rate_hz)
    units = np.eye(block + _STATE)  # one at a time, each row a run of the filter
    before = units[:, block:].reshape(-1, _SECTIONS, _SECTION_STATE).swapaxes(0, 1)
    filtered, after = sosfilt(sections, units[:, :block], zi=before)
    after = after.swapaxes(0, 1).reshape(-1, _STATE)
    return np.concatenate([filtered, after], axis=1).astype(np.float32)
