"""Masking of patch tokens (section 3.1 of the paper).

A mask `keep_BK` has the distinct indices of the K visible tokens of each clip, or of each view of
a clip. The token index is t · n_freq + f, so a group of 2-D masking, which is one time step, has
n_freq consecutive tokens. A ratio is the share of tokens removed along a dimension; the number
kept is truncated: 512 tokens at 0.4 keep 307, a 64 x 8 grid at 0.2/0.2 keeps 51 · 6 = 306.
"""

import torch

from flap.core.errors import UserError
from flap.model.config import Grid, Mask1D, Mask2D, NoMask


def n_kept(n: int, ratio: float) -> int:
    """Tokens kept of `n`, truncated; the tolerance is for products such as 8.999… for 9."""
    return int(n * (1 - ratio) + 1e-9)


def kept_tokens(mask: NoMask | Mask1D | Mask2D, grid: Grid) -> int:
    """Number of visible tokens of a clip under `mask`."""
    if isinstance(mask, Mask1D):
        return n_kept(grid[0] * grid[1], mask.ratio)
    if isinstance(mask, Mask2D):
        return n_kept(grid[0], mask.time_ratio) * n_kept(grid[1], mask.freq_ratio)
    return grid[0] * grid[1]


def check_mask(mask: NoMask | Mask1D | Mask2D, grid: Grid, key: str, *, must_hide: bool) -> None:
    """Check that a mask works on a grid.

    Args:
        key: key of the mask in params.yaml, for the message.
        must_hide: whether the training needs masked tokens.

    Raises:
        UserError: the mask keeps no token, or hides none although it must.
    """
    kept, tokens = kept_tokens(mask, grid), grid[0] * grid[1]
    if not kept:
        raise UserError(f"{key}: {mask} keeps none of {grid[0]} x {grid[1]} tokens; lower a ratio")
    if must_hide and kept == tokens:
        raise UserError(
            f"{key}: {mask} hides none of {grid[0]} x {grid[1]} tokens, but reconstruction and "
            "views above 1 need hidden tokens; raise a ratio"
        )


def draw_mask(
    mask: NoMask | Mask1D | Mask2D, grid: Grid, batch: int, generator: torch.Generator
) -> torch.Tensor | None:
    """A mask (B, K) for each of `batch` clips or views; None for `NoMask`."""
    if isinstance(mask, Mask1D):
        return mask_1d(grid, mask.ratio, batch, generator)
    if isinstance(mask, Mask2D):
        draw = mask_2d if mask.members == "independent" else mask_2d_shared
        return draw(grid, mask.time_ratio, mask.freq_ratio, batch, generator)
    return None


def mask_1d(grid: Grid, ratio: float, batch: int, generator: torch.Generator) -> torch.Tensor:
    """1-D masking: shuffle all tokens of each clip and keep the first N': (B, N')."""
    n_tokens = grid[0] * grid[1]
    return _shuffled((batch, n_tokens), generator)[:, : n_kept(n_tokens, ratio)]


def mask_2d(
    grid: Grid, time_ratio: float, freq_ratio: float, batch: int, generator: torch.Generator
) -> torch.Tensor:
    """2-D masking: keep M' time steps, and K' frequencies drawn for each of them: (B, M' · K')."""
    steps_BM = _shuffled((batch, grid[0]), generator)[:, : n_kept(grid[0], time_ratio)]
    freqs_BTF = _shuffled((batch, *grid), generator)[:, :, : n_kept(grid[1], freq_ratio)]
    freqs_BMF = freqs_BTF.gather(1, steps_BM[:, :, None].expand(-1, -1, freqs_BTF.shape[2]))
    return (steps_BM[:, :, None] * grid[1] + freqs_BMF).flatten(1)


def mask_2d_shared(
    grid: Grid, time_ratio: float, freq_ratio: float, batch: int, generator: torch.Generator
) -> torch.Tensor:
    """As `mask_2d`, but all time steps of a clip keep the same K' frequencies."""
    steps_BM = _shuffled((batch, grid[0]), generator)[:, : n_kept(grid[0], time_ratio)]
    freqs_BF = _shuffled((batch, grid[1]), generator)[:, : n_kept(grid[1], freq_ratio)]
    return (steps_BM[:, :, None] * grid[1] + freqs_BF[:, None, :]).flatten(1)


def _shuffled(shape: tuple[int, ...], generator: torch.Generator) -> torch.Tensor:
    """Independent random permutations of 0..n-1 along the last dimension."""
    return torch.rand(shape, generator=generator).argsort(dim=-1)
