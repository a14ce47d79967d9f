"""Loudness, silence, clipping and peak of signals with known levels."""

import librosa
import numpy as np
import pyloudnorm
import pytest
import scipy.signal
from audio_files import CONFIG

from flap.audio.levels import count_clipped, k_weighted, loudness_lufs, peak, silence

# (sample rate, offset) → LUFS of `swelling_noise` by the filter that multiplied matrices in
# float32, before scipy's `sosfilt` replaced it.
LOUDNESS_BY_MATRICES = {
    (8000, 0.0): -23.627996829072593,
    (8000, 0.05): -23.734096650879614,
    (16000, 0.0): -22.962797105997662,
    (16000, 0.05): -22.969666816259515,
    (44100, 0.0): -22.50185509542948,
    (44100, 0.05): -22.5329562119143,
    (48000, 0.0): -22.484354011304532,
    (48000, 0.05): -22.53220512250363,
}


def sine(dbfs: float, seconds: float = 5.0, rate_hz: int = 16000) -> np.ndarray:
    phase = 2 * np.pi * 997 * np.arange(round(seconds * rate_hz)) / rate_hz
    return (10 ** (dbfs / 20) * np.sin(phase)).astype("f4")


@pytest.mark.parametrize("dbfs", [0.0, -20.0, -40.0])
def test_997_hz_at_full_scale_in_one_channel_is_minus_3_lufs(dbfs: float) -> None:
    assert loudness_lufs(sine(dbfs), 16000) == pytest.approx(dbfs - 3.01, abs=0.1)


def test_a_reference_of_minus_23_lufs() -> None:
    assert loudness_lufs(sine(-23 + 3.01), 16000) == pytest.approx(-23, abs=0.1)


@pytest.mark.parametrize("rate_hz", [16000, 32000, 44100, 48000])
def test_loudness_equals_pyloudnorms(rate_hz: int) -> None:
    """For a length in whole tenths of a second: pyloudnorm counts an incomplete last block."""
    samples = swelling_noise(rate_hz)
    expected = pyloudnorm.Meter(rate_hz).integrated_loudness(samples.astype("f8"))
    assert loudness_lufs(samples, rate_hz) == pytest.approx(expected, abs=0.01)


@pytest.mark.parametrize(("rate_hz", "offset"), LOUDNESS_BY_MATRICES)
def test_loudness_stayed_the_same_with_sosfilt(rate_hz: int, offset: float) -> None:
    found = loudness_lufs(swelling_noise(rate_hz, offset), rate_hz)
    assert found == pytest.approx(LOUDNESS_BY_MATRICES[rate_hz, offset], abs=1e-4)


def swelling_noise(rate_hz: int, offset: float = 0.0) -> np.ndarray:
    """3.7 s of noise that grows louder; seed 1 with an offset, seed 0 without."""
    rng = np.random.default_rng(int(offset > 0))
    n_samples = rate_hz * 37 // 10
    noise = rng.normal(0, 0.1, n_samples) * np.linspace(0, 1, n_samples) ** 2
    return (noise + offset).astype("f4")


@pytest.mark.parametrize("rate_hz", [8000, 11025, 16000, 48000])
@pytest.mark.parametrize("seconds", [0.05, 0.4, 3.21])
def test_k_weighting_equals_pyloudnorms_filters(rate_hz: int, seconds: float) -> None:
    rng = np.random.default_rng(0)
    samples = (rng.normal(0, 0.1, round(seconds * rate_hz)) + 0.05).astype("f4")
    filters = pyloudnorm.Meter(rate_hz)._filters
    expected = samples.astype("f8")
    for name in ("high_shelf", "high_pass"):
        expected = scipy.signal.lfilter(filters[name].b, filters[name].a, expected)
    np.testing.assert_allclose(k_weighted(samples, rate_hz), expected, atol=1e-9)


def test_pauses_are_gated() -> None:
    paused = np.concatenate([sine(-20), np.zeros(80000, "f4")])
    assert loudness_lufs(paused, 16000) == pytest.approx(-23.01, abs=0.3)  # not -26


def test_short_and_silent_signals_have_no_loudness() -> None:
    assert loudness_lufs(sine(0, seconds=0.39), 16000) is None
    assert loudness_lufs(sine(0, seconds=0.4), 16000) is not None
    assert loudness_lufs(np.zeros(16000, "f4"), 16000) is None
    assert loudness_lufs(sine(-80), 16000) is None


def test_silence_is_the_share_of_quiet_frames() -> None:
    assert silence(sine(-56), CONFIG) == 0
    assert silence(sine(-58), CONFIG) == 1  # an RMS of -61 dBFS
    half = np.concatenate([np.zeros(80000, "f4"), sine(-20)])
    assert silence(half, CONFIG) == pytest.approx(0.5, abs=0.01)
    assert silence(np.zeros(400, "f4"), CONFIG) == 1


@pytest.mark.slow
def test_silence_agrees_with_librosas_rms() -> None:
    samples = sine(-20) * np.logspace(-4, 0, 80000, dtype="f4")
    rms = librosa.feature.rms(y=samples, frame_length=160, hop_length=160, center=False)
    expected = np.mean(rms < 1e-3)
    assert 0.1 < expected < 0.9
    assert silence(samples, CONFIG) == pytest.approx(expected, abs=0.003)


def test_a_frame_is_clipped_if_any_channel_is_at_full_scale() -> None:
    frames_TC = np.zeros((100, 2), "f4")
    assert count_clipped(frames_TC) == 0
    frames_TC[3, 0], frames_TC[3, 1], frames_TC[7, 1], frames_TC[9, 0] = 1, -1, -1, 0.999
    assert count_clipped(frames_TC) == 2
    assert count_clipped(frames_TC[:0]) == 0


def test_peak_is_absolute() -> None:
    assert peak(np.array([0.1, -0.5, 0.3], "f4")) == 0.5
    assert peak(np.array([0.1, -0.2, 0.3], "f4")) == pytest.approx(0.3)
