"""Masks: the numbers of the paper, and properties on any grid."""

from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import chi2
from small_models import ENCODER, generator, mels

from flap.core.errors import UserError
from flap.model.audio_encoder import AudioEncoder, pool, visible_tokens
from flap.model.config import Mask1D, Mask2D, NoMask
from flap.model.masking import (
    check_mask,
    draw_mask,
    kept_tokens,
    mask_1d,
    mask_2d,
    mask_2d_shared,
)

PAPER_GRID, LONG_GRID = (64, 8), (101, 12)
Draw = Callable[..., torch.Tensor]


def test_numbers_kept_are_the_papers() -> None:
    assert mask_1d(PAPER_GRID, 0.4, 2, generator()).shape == (2, 307)
    assert mask_2d(PAPER_GRID, 0.2, 0.2, 2, generator()).shape == (2, 51 * 6)
    assert mask_2d_shared(PAPER_GRID, 0.2, 0.2, 2, generator()).shape == (2, 306)


def test_truncation_ignores_rounding_errors() -> None:
    assert mask_1d((10, 1), 0.1, 1, generator()).shape == (1, 9)  # 10 · 0.9 = 9.000…0 or 8.99…


@settings(max_examples=50, deadline=None)
@given(
    grid=st.tuples(st.integers(1, 101), st.integers(1, 12)),
    ratios=st.tuples(st.floats(0, 0.9), st.floats(0, 0.9)),
    members=st.sampled_from(["independent", "shared"]),
    seed=st.integers(0, 2**31),
)
def test_masks_keep_the_number_promised_of_distinct_tokens_of_the_grid(
    grid: tuple[int, int], ratios: tuple[float, float], members: str, seed: int
) -> None:
    one = Mask1D(kind="1d", ratio=ratios[0])
    two = Mask2D(kind="2d", time_ratio=ratios[0], freq_ratio=ratios[1], members=members)  # type: ignore[arg-type]
    for mask in (one, two):
        keep_BK = draw_mask(mask, grid, 3, generator(seed))
        assert keep_BK is not None
        assert keep_BK.shape == (3, kept_tokens(mask, grid))
        for kept in keep_BK.tolist():
            assert len(set(kept)) == len(kept)
            assert all(0 <= token < grid[0] * grid[1] for token in kept)


@settings(max_examples=25, deadline=None)
@given(
    grid=st.tuples(st.integers(2, 101), st.integers(2, 12)),
    ratios=st.tuples(st.floats(0, 0.9), st.floats(0, 0.9)),
    seed=st.integers(0, 2**31),
)
def test_2d_masks_keep_equally_many_frequencies_in_each_time_step_kept(
    grid: tuple[int, int], ratios: tuple[float, float], seed: int
) -> None:
    for draw, is_shared in ((mask_2d, False), (mask_2d_shared, True)):
        for kept in draw(grid, *ratios, 3, generator(seed)):
            _, counts = torch.unique(kept // grid[1], return_counts=True)
            assert len(set(counts.tolist())) <= 1
            if is_shared and len(counts):
                assert len(torch.unique(kept % grid[1])) == counts[0]


def test_members_of_a_group_are_independent_or_shared() -> None:
    independent = mask_2d(PAPER_GRID, 0.2, 0.2, 50, generator())
    shared = mask_2d_shared(PAPER_GRID, 0.2, 0.2, 50, generator())
    assert len(torch.unique(independent[0] % 8)) == 8
    assert len(torch.unique(shared[0] % 8)) == 6


@pytest.mark.parametrize("grid", [(8, 4), PAPER_GRID, LONG_GRID])
@pytest.mark.parametrize("draw", [mask_1d, mask_2d, mask_2d_shared])
def test_every_token_is_kept_equally_often(draw: Draw, grid: tuple[int, int]) -> None:
    """Chi-square of the marginals against uniform, at the 99.9 % quantile.

    For 2-D masks, two draws are tested: the time steps, and the frequencies. Independent members
    are tested for each time step.
    """
    draws, (steps, freqs) = 4000, grid
    if draw is mask_1d:
        keep_BK = draw(grid, 0.4, draws, generator(1))
        counts = torch.bincount(keep_BK.flatten(), minlength=steps * freqs)
        _assert_uniform(counts[None], keep_BK.shape[1])
        return
    keep_BK = draw(grid, 0.3, 0.4, draws, generator(1))
    tokens_KS = torch.bincount(keep_BK.flatten(), minlength=steps * freqs).view(steps, freqs)
    kept_freqs = int(freqs * 0.6)
    _assert_uniform(tokens_KS.sum(dim=1)[None] // kept_freqs, int(steps * 0.7 + 1e-9))
    if draw is mask_2d_shared:
        chosen = torch.stack([torch.unique(kept % freqs) for kept in keep_BK])
        _assert_uniform(torch.bincount(chosen.flatten(), minlength=freqs)[None], kept_freqs)
    else:
        _assert_uniform(tokens_KS, kept_freqs)


def _assert_uniform(counts_RX: torch.Tensor, kept: int) -> None:
    """Check rows of counts, each of draws of `kept` out of X cells without replacement."""
    rows, cells = counts_RX.shape
    expected_R1 = counts_RX.double().sum(dim=1, keepdim=True) / cells
    variance_R1 = expected_R1 * (1 - kept / cells) * cells / (cells - 1)
    statistic = ((counts_RX - expected_R1) ** 2 / variance_R1).sum()
    freedom = rows * (cells - 1)
    assert chi2.ppf(0.001, freedom) < statistic < chi2.ppf(0.999, freedom)


def test_masks_that_hide_all_or_nothing_are_refused() -> None:
    nothing_left = Mask2D(kind="2d", time_ratio=0.2, freq_ratio=0.9, members="shared")
    with pytest.raises(UserError, match=r"pretrain\.mask: .*keeps none of 64 x 8"):
        check_mask(nothing_left, PAPER_GRID, "pretrain.mask", must_hide=False)
    for mask in (NoMask(kind="none"), Mask1D(kind="1d", ratio=0.0)):
        check_mask(mask, PAPER_GRID, "tagger.mask", must_hide=False)
        with pytest.raises(UserError, match="hides none of 64 x 8 tokens"):
            check_mask(mask, PAPER_GRID, "pretrain.mask", must_hide=True)


def test_masks_follow_the_generator_and_none_draws_nothing() -> None:
    mask = Mask1D(kind="1d", ratio=0.5)
    first, again = (draw_mask(mask, (4, 2), 2, generator(1)) for _ in range(2))
    assert first is not None and torch.equal(first, again)
    assert draw_mask(NoMask(kind="none"), (4, 2), 2, generator()) is None
    assert kept_tokens(NoMask(kind="none"), (4, 2)) == 8


@pytest.mark.parametrize("draw", [mask_1d, mask_2d, mask_2d_shared])
def test_masked_patches_do_not_leak(draw: Draw) -> None:
    encoder = AudioEncoder(ENCODER).eval()
    mel_BCTF = mels(2)
    keep_BK = draw(ENCODER.grid, 0.25, *([] if draw is mask_1d else [0.5]), 2, generator())
    disturbed = mel_BCTF.clone()
    for clip in range(2):
        for token in set(range(8)) - set(keep_BK[clip].tolist()):
            t, f = token // 2 * 16, token % 2 * 16
            disturbed[clip, :, t : t + 16, f : f + 16] += 100
    torch.testing.assert_close(
        encoder(mel_BCTF, keep_BK), encoder(disturbed, keep_BK), rtol=0, atol=0
    )
    assert not torch.allclose(encoder(mel_BCTF), encoder(disturbed))


def test_masked_patches_do_not_leak_on_a_long_grid() -> None:
    """On 101 x 12, a hard-coded grid would leak patches."""
    tokens_BND = torch.randn(2, 101 * 12, 4, requires_grad=True)
    keep_BK = mask_2d(LONG_GRID, 0.3, 0.3, 2, generator())
    visible_tokens(tokens_BND, keep_BK).sum().backward()
    assert tokens_BND.grad is not None
    for clip in range(2):
        seen = tokens_BND.grad[clip].any(dim=1).nonzero()[:, 0]
        assert seen.tolist() == sorted(keep_BK[clip].tolist())


def test_keeping_all_tokens_in_any_order_is_no_mask() -> None:
    encoder = AudioEncoder(ENCODER).eval()
    keep_BK = mask_1d(ENCODER.grid, 0.0, 3, generator())
    masked, whole = pool(encoder(mels(3), keep_BK)), pool(encoder(mels(3)))
    torch.testing.assert_close(masked, whole, atol=1e-5, rtol=1e-5)


def test_views_equal_separate_passes() -> None:
    encoder = AudioEncoder(ENCODER).eval()
    first, second = (mask_1d(ENCODER.grid, 0.5, 3, generator(seed)) for seed in (1, 2))
    together = encoder(mels(3), torch.cat([first, second]))
    apart = torch.cat([encoder(mels(3), first), encoder(mels(3), second)])
    torch.testing.assert_close(together, apart, atol=1e-5, rtol=1e-5)
