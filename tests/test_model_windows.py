"""Windows: crops, padding, the four channels of fusion, SpecAugment."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from flap.model.config import SpecAugment
from flap.model.windows import (
    Window,
    crop_or_pad,
    fusion_window,
    make_window,
    middle_windows,
    spec_augment,
    squeeze,
)


def ramp(frames: int, bins: int = 2) -> np.ndarray:
    """A log-mel whose frame t has the value t."""
    return np.repeat(np.arange(frames, dtype=np.float16)[:, None], bins, axis=1)


def test_windows_are_cropped_or_padded() -> None:
    assert crop_or_pad(ramp(10), 4, 0.0)[0, 0] == 0
    assert crop_or_pad(ramp(10), 4, 1.0)[-1, -1] == 9
    assert crop_or_pad(ramp(10), 4, 0.5).shape == (4, 2)
    padded = crop_or_pad(ramp(10), 12, 0.7)
    assert (padded[:10] == ramp(10)).all() and not padded[10:].any()


@pytest.mark.parametrize("frames", [1, 7, 8])
def test_clips_no_longer_than_the_window_are_four_copies(frames: int) -> None:
    window = fusion_window(ramp(frames), 8, lambda: 0.9)
    assert not window.longer and window.mel_CTF.shape == (4, 8, 2)
    assert (window.mel_CTF == crop_or_pad(ramp(frames), 8, 0)).all()


@settings(max_examples=50, deadline=None)
@given(st.integers(9, 60), st.lists(st.floats(0, 1, exclude_max=True), min_size=3, max_size=3))
def test_longer_clips_are_squeezed_whole_and_cropped_in_each_third(
    frames: int, draws: list[float]
) -> None:
    window = fusion_window(ramp(frames), 8, iter(draws).__next__)
    assert window.longer
    starts = [int(crop[0, 0]) for crop in window.mel_CTF[1:]]
    for crop, start in zip(window.mel_CTF[1:], starts, strict=True):
        assert (crop == ramp(frames)[start : start + 8]).all()
    thirds = np.array_split(np.arange(frames - 8 + 1), 3)
    for start, third in zip(starts, thirds, strict=True):
        assert start in third or (not len(third) and start == 0)


def test_squeezing_is_torchs_linear_interpolation() -> None:
    mel_TF = np.random.default_rng(0).normal(size=(37, 5)).astype(np.float32)
    image = torch.from_numpy(mel_TF)[None, None]
    expected = torch.nn.functional.interpolate(image, (16, 5), mode="bilinear")
    torch.testing.assert_close(torch.from_numpy(squeeze(mel_TF, 16)), expected[0, 0])


def test_windows_for_evaluation_are_not_random() -> None:
    batch = middle_windows([ramp(20), ramp(3)], 8, fusion=True)
    again = middle_windows([ramp(20), ramp(3)], 8, fusion=True)
    assert torch.equal(batch.mel_BCTF, again.mel_BCTF)
    assert batch.mel_BCTF.shape == (2, 4, 8, 2) and batch.longer_B.tolist() == [True, False]
    single = middle_windows([ramp(20)], 8, fusion=False)
    assert single.mel_BCTF.shape == (1, 1, 8, 2) and single.mel_BCTF[0, 0, 0, 0] == 6


@settings(max_examples=100, deadline=None)
@given(st.integers(0, 300), st.integers(0, 60), st.integers(0, 2**31))
def test_spec_augment_zeroes_one_stripe_of_each_kind(frames: int, bins: int, seed: int) -> None:
    window = Window(np.ones((4, 50, 16), np.float32), longer=True)
    stripes = SpecAugment(max_frames=frames, max_bins=bins)
    mel_CTF = spec_augment(window, stripes, np.random.default_rng(seed)).mel_CTF
    assert window.mel_CTF.all(), "the caller's window was changed"
    assert (mel_CTF == mel_CTF[0]).all()
    dead_T, dead_F = ~mel_CTF[0].any(axis=1), ~mel_CTF[0].any(axis=0)
    for dead, largest in ((dead_T, frames), (dead_F, bins)):
        if dead.all():  # a full stripe of the other kind covers everything
            continue
        assert dead.sum() <= largest
        assert np.count_nonzero(np.diff(dead.astype(int), prepend=0) == 1) <= 1


def test_spec_augment_reaches_its_largest_stripes_and_comes_after_padding() -> None:
    random, stripes = np.random.default_rng(0), SpecAugment(max_frames=192, max_bins=48)
    widths = []
    for _ in range(500):
        window = Window(np.ones((1, 1024, 128), np.float32), longer=False)
        mel_TF = spec_augment(window, stripes, random).mel_CTF[0]
        widths.append(((~mel_TF.any(axis=1)).sum(), (~mel_TF.any(axis=0)).sum()))
    largest_frames, largest_bins = np.max(widths, axis=0)
    assert 185 <= largest_frames <= 192 and largest_bins == 48
    assert np.mean(widths, axis=0) == pytest.approx([96, 24], rel=0.1)


def test_unfused_window_says_that_the_clip_is_longer() -> None:
    assert make_window(ramp(20), 8, False, lambda: 0.5).longer
    assert not make_window(ramp(8), 8, False, lambda: 0.5).longer
