"""`Fbank` against the formula and against torchaudio, for single clips and batches."""

import numpy as np
import pytest
import torch
from audio_files import CONFIG, noise, tone
from torchaudio.compliance import kaldi

from flap.audio.fbank import Fbank, fbank, log_mel
from flap.audio.resample import resample

WINDOWS = ["hanning", "hamming", "povey"]


def by_torchaudio(samples: np.ndarray, config=CONFIG) -> np.ndarray:
    return kaldi.fbank(
        torch.from_numpy(samples - samples.mean())[None],
        sample_frequency=config.sample_rate_hz,
        htk_compat=True,
        use_energy=False,
        window_type=config.window,
        num_mel_bins=config.n_mels,
        dither=0.0,
        frame_length=config.frame_ms,
        frame_shift=config.hop_ms,
    ).numpy()


def coloured(n_samples: int, seed: int = 0) -> np.ndarray:
    """Noise and a tone on an offset."""
    rng = np.random.default_rng(seed)
    pitch = 0.2 * np.sin(np.arange(n_samples) * rng.uniform(0.05, 2))
    return (rng.normal(0.1, 0.1, n_samples) + pitch).astype("f4")


@pytest.mark.parametrize("window", WINDOWS)
@pytest.mark.parametrize("n_samples", [400, 559, 560, 16000, 160000])
def test_equals_torchaudio(window: str, n_samples: int) -> None:
    config = CONFIG.model_copy(update={"window": window})
    samples = coloured(n_samples)
    expected = by_torchaudio(samples, config)
    np.testing.assert_allclose(log_mel(samples, config), expected, rtol=0, atol=2e-3)


@pytest.mark.parametrize(
    "changes",
    [
        {"n_mels": 64, "frame_ms": 20.0, "hop_ms": 5.0},
        {"n_mels": 23, "sample_rate_hz": 8000},
        {"n_mels": 5},
        {"n_mels": 128, "sample_rate_hz": 44100},
    ],
)
def test_equals_torchaudio_for_other_front_ends(changes: dict[str, float]) -> None:
    config = CONFIG.model_copy(update=changes)
    samples = coloured(20000)
    expected = by_torchaudio(samples, config)
    np.testing.assert_allclose(log_mel(samples, config), expected, rtol=0, atol=2e-3)


@pytest.mark.parametrize("window", WINDOWS)
def test_a_batch_gives_the_values_of_single_clips(window: str) -> None:
    """The lengths end within a hop, at a hop, and at one frame; tiles span several clips."""
    config = CONFIG.model_copy(update={"window": window})
    lengths = [400, 16000, 163999, 401, 560, 33333]
    clips = [coloured(n, seed) for seed, n in enumerate(lengths)]
    mels = fbank(config)([torch.from_numpy(clip) for clip in clips])
    assert [len(mel_TF) for mel_TF in mels] == [1 + (n - 400) // 160 for n in lengths]
    for clip, mel_TF in zip(clips, mels, strict=True):
        np.testing.assert_allclose(mel_TF, by_torchaudio(clip, config), rtol=0, atol=2e-3)


def test_a_frame_of_ten_seconds_equals_the_formula() -> None:
    """The formula in numpy and float64: frames, Hann window, mel triangles, log."""
    samples = noise(10.0, 16000)[:, 0]
    mel_TF = log_mel(samples, CONFIG)
    assert mel_TF.shape == (998, 128)
    x = samples.astype("f8") - samples.mean(dtype="f8")
    frame = x[160 * 500 : 160 * 500 + 400]
    frame = frame - frame.mean()
    frame = frame - 0.97 * np.concatenate([frame[:1], frame[:-1]])
    power = np.abs(np.fft.rfft(frame * np.hanning(400), 512)) ** 2
    edges = np.linspace(*(1127 * np.log(1 + np.array([20.0, 8000.0]) / 700)), 130)
    bins = 1127 * np.log(1 + np.arange(257) * 16000 / 512 / 700)
    up = (bins - edges[:-2, None]) / (edges[1:-1] - edges[:-2])[:, None]
    down = (edges[2:, None] - bins) / (edges[2:] - edges[1:-1])[:, None]
    weights = np.maximum(0, np.minimum(up, down))
    weights[:, 256] = 0  # Kaldi omits the Nyquist bin
    expected = np.log(np.maximum(weights @ power, np.finfo("f4").eps))
    np.testing.assert_allclose(mel_TF[500], expected, atol=5e-3)


def test_silence_has_the_smallest_log_mel() -> None:
    expected = np.log(np.finfo("f4").eps)
    np.testing.assert_allclose(log_mel(np.zeros(1600, "f4"), CONFIG), expected)


def test_an_offset_does_not_change_the_mel() -> None:
    samples = tone(1.0, 16000) + np.random.default_rng(0).normal(0, 0.01, 16000).astype("f4")
    shifted = log_mel(samples + np.float32(0.25), CONFIG)
    np.testing.assert_allclose(shifted, log_mel(samples, CONFIG), atol=1e-2)


def test_a_resampled_tone_has_the_same_mel_peaks() -> None:
    at_16k = log_mel(tone(1.0, 16000), CONFIG)
    at_48k = log_mel(resample(tone(1.0, 48000), 48000, 16000), CONFIG)
    assert at_16k.shape == at_48k.shape == (98, 128)
    assert np.abs(at_16k[10:-10].argmax(1) - at_48k[10:-10].argmax(1)).max() == 0


def test_less_than_a_frame_is_an_error() -> None:
    with pytest.raises(ValueError, match="less than the 400 samples of one frame"):
        log_mel(np.zeros(399, "f4"), CONFIG)


def test_equal_front_ends_share_one_instance() -> None:
    assert fbank(CONFIG) is fbank(CONFIG.model_copy())


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_gpu_gives_torchaudios_values() -> None:
    clips = [coloured(n) for n in (16000, 400, 160000)]
    gpu = torch.device("cuda")
    mels = Fbank(CONFIG, gpu)([torch.from_numpy(clip).to(gpu) for clip in clips])
    for clip, mel_TF in zip(clips, mels, strict=True):
        np.testing.assert_allclose(mel_TF.cpu(), by_torchaudio(clip), rtol=0, atol=2e-3)
