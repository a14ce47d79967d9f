"""The filter that ITU-R BS.1770-4 weighs loudness with, in blocks, as products of matrices.

The filter is linear. So what it makes of a block, and the four numbers that it remembers after
it, are a matrix times the block and the four numbers remembered before; and those are another
matrix times what the blocks of the last tenth or two of a second left to remember. A loop over
samples takes several times as long, for it waits for each sample's result.

Letters: N samples, B blocks, L samples of a block, S = 4 numbers that the filter remembers,
M stretches of `_BLOCKS` blocks.
"""

from functools import lru_cache
from typing import NamedTuple

import numpy as np
import torch

_STRETCH_S = 0.1  # the filter forgets in it: what is left of an impulse is below 1e-9
_BLOCKS = 20  # of a stretch
_SECTIONS, _SECTION_STATE = 2, 2
_STATE = _SECTIONS * _SECTION_STATE


class _Filter(NamedTuple):
    """The filter at one rate, float32."""

    of_block: torch.Tensor
    """(L, L + S): a block → what the filter makes of it after silence, and then remembers."""
    of_state: torch.Tensor
    """(S, L): what it remembers before a block → what that adds to the block."""
    of_past: torch.Tensor
    """(2 · _BLOCKS · S, _BLOCKS · S): what the blocks of a stretch and of the one before left
    to remember → what is remembered before each block of the stretch."""


def k_weighted(samples: np.ndarray, rate_hz: int) -> torch.Tensor:
    """K-weighted samples, (N,) float32 → (N,) float32, from silence on.

    As scipy's `sosfilt` with pyloudnorm's coefficients, to float32's precision.
    """
    k_filter = _k_filter(rate_hz)
    block = len(k_filter.of_block)
    n_stretches = -(-len(samples) // (_BLOCKS * block))
    padded_N = torch.zeros(n_stretches * _BLOCKS * block)
    padded_N[: len(samples)] = torch.from_numpy(samples)
    product = padded_N.view(-1, block) @ k_filter.of_block
    filtered_BL, left_BS = product[:, :block], product[:, block:]
    left_M = torch.cat([torch.zeros(1, _BLOCKS * _STATE), left_BS.reshape(n_stretches, -1)])
    before_BS = (torch.cat([left_M[:-1], left_M[1:]], 1) @ k_filter.of_past).view(-1, _STATE)
    return torch.addmm(filtered_BL, before_BS, k_filter.of_state).view(-1)[: len(samples)]


@lru_cache
def _k_filter(rate_hz: int) -> _Filter:
    from pyloudnorm import IIRfilter
    from scipy.signal import sosfilt

    shelf = IIRfilter(4.0, 1 / np.sqrt(2), 1500.0, rate_hz, "high_shelf")
    high_pass = IIRfilter(0.0, 0.5, 38.0, rate_hz, "high_pass")
    sections = np.array([[*section.b, *section.a] for section in (shelf, high_pass)])
    block = max(1, round(rate_hz * _STRETCH_S / _BLOCKS))
    units = np.eye(block + _STATE)  # one at a time, each row a run of the filter
    before = units[:, block:].reshape(-1, _SECTIONS, _SECTION_STATE).swapaxes(0, 1)
    filtered, after = sosfilt(sections, units[:, :block], zi=before)
    after = after.swapaxes(0, 1).reshape(-1, _STATE)
    # What is left after a block is, n blocks later, multiplied by the n-th power of this.
    powers = [np.linalg.matrix_power(after[block:], n) for n in range(2 * _BLOCKS)]
    none = np.zeros((_STATE, _STATE))
    of_past = [
        [powers[now - 1 - past] if past < now else none for now in range(_BLOCKS, 2 * _BLOCKS)]
        for past in range(2 * _BLOCKS)
    ]
    of_block = np.concatenate([filtered[:block], after[:block]], axis=1)
    matrices = of_block, filtered[block:], np.block(of_past)
    return _Filter(*(torch.from_numpy(matrix).float() for matrix in matrices))
