"""Mono waveforms → log-mels (frames, mel bins), as MAViL and AudioMAE take them.

The values are those of torchaudio.compliance.kaldi.fbank with htk_compat, without energy and
without dither, up to float32's rounding, some three times as fast on one core
(`benchmarks.fbank`): pre-emphasis once a waveform instead of once a frame, tiles that stay in
the cache, and no product with the zeros of the mel filters.

The result is not normalised and not padded: that is the consumer's, who knows its window.

Letters: N samples, T frames, W samples of a frame, F mel bins, K numbers of a power spectrum
(each bin twice: the square of its real and that of its imaginary part).
"""

from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

import numpy as np
import torch

from flap.audio.config import AudioConfig

_PRE_EMPHASIS = 0.97
_LOW_HZ = 20.0
_BANDS = 8  # more of them save less than their calls cost
_TILE_FRAMES = {"cpu": 512, "cuda": 65536}  # a megabyte, which a core's cache holds; and 128 MB


class _Band(NamedTuple):
    """Neighbouring mel filters and the stretch of the spectrum that they weigh."""

    mels: slice
    powers: slice
    weights_KF: torch.Tensor


class Fbank:
    """Kaldi's fbank for one front end on one device; `fbank` keeps one a process."""

    def __init__(self, config: AudioConfig, device: torch.device) -> None:
        self._frame, self._hop = config.frame_samples, config.hop_samples
        self._fft = 1 << (self._frame - 1).bit_length()
        self._n_mels, self._device = config.n_mels, device
        self._tile_frames = _TILE_FRAMES.get(device.type, _TILE_FRAMES["cuda"])
        self._window_W = _window(config.window, self._frame).to(device)
        self._bands = _bands(config, self._fft, device)

    def __call__(self, waveforms: Sequence[torch.Tensor]) -> list[torch.Tensor]:
        """Log-mels (T, F) float32 of mono waveforms (N,) float32, of any lengths, on the device.

        The mean of each waveform is subtracted. Kaldi drops the last partial frame: 10 s give
        998 frames at 25 ms / 10 ms.

        Raises:
            ValueError: a waveform is shorter than a frame.
        """
        counts = [1 + (len(waveform) - self._frame) // self._hop for waveform in waveforms]
        if min(counts) < 1:
            raise ValueError(f"a waveform has less than the {self._frame} samples of a frame")
        joined_N, starts = self._join(waveforms)
        mel_TF = self._log_mel(joined_N)
        return [mel_TF[start : start + n] for start, n in zip(starts, counts, strict=True)]

    def _join(self, waveforms: Sequence[torch.Tensor]) -> tuple[torch.Tensor, list[int]]:
        """All waveforms in one, each from a multiple of the hop on, and their first frames.

        Frames across two waveforms are computed and left out: two or three a waveform.
        """
        centred = [waveform - waveform.mean() for waveform in waveforms]
        if len(centred) == 1:
            return centred[0], [0]
        hops = [-(-len(waveform) // self._hop) for waveform in centred]
        starts = [sum(hops[:i]) for i in range(len(hops))]
        joined_N = torch.zeros(sum(hops) * self._hop, device=self._device)
        for waveform, start in zip(centred, starts, strict=True):
            joined_N[start * self._hop :][: len(waveform)] = waveform
        return joined_N, starts

    def _log_mel(self, x_N: torch.Tensor) -> torch.Tensor:
        """A frame is centred, then pre-emphasised: with its mean m and p_i = x_i - .97 x_(i-1),
        (x_i - m) - .97 (x_(i-1) - m) = p_i - .03 m; its first sample is its own predecessor,
        (x_0 - m) - .97 (x_0 - m) = .03 x_0 - .03 m.
        """
        n_frames = 1 + (len(x_N) - self._frame) // self._hop
        x_TW = x_N.as_strided((n_frames, self._frame), (self._hop, 1))
        means_T1 = x_TW.mean(1, keepdim=True).mul_(1 - _PRE_EMPHASIS)
        p_N = torch.zeros_like(x_N)
        torch.add(x_N[1:], x_N[:-1], alpha=-_PRE_EMPHASIS, out=p_N[1:])
        p_TW = p_N.as_strided((n_frames, self._frame), (self._hop, 1))
        firsts_T = x_TW[:, 0] * (1 - _PRE_EMPHASIS) - means_T1[:, 0]
        mel_TF = x_N.new_empty((n_frames, self._n_mels))
        padded = x_N.new_zeros((min(self._tile_frames, n_frames), self._fft))
        for start in range(0, n_frames, self._tile_frames):
            tile = slice(start, min(start + self._tile_frames, n_frames))
            rows = padded[: tile.stop - start]
            frames = rows[:, : self._frame]
            torch.sub(p_TW[tile], means_T1[tile], out=frames)
            frames[:, 0] = firsts_T[tile]
            frames.mul_(self._window_W)
            powers_TK = torch.view_as_real(torch.fft.rfft(rows)).flatten(1).square_()
            for band in self._bands:
                torch.mm(powers_TK[:, band.powers], band.weights_KF, out=mel_TF[tile, band.mels])
        return mel_TF.clamp_(min=torch.finfo(torch.float32).eps).log_()


@lru_cache
def fbank(config: AudioConfig, device: torch.device | None = None) -> Fbank:
    """The `Fbank` of this front end, built once a process; without a device, on the CPU."""
    return Fbank(config, device or torch.device("cpu"))


def log_mel(samples: np.ndarray, config: AudioConfig) -> np.ndarray:
    """Log-mel (n_frames, n_mels) of mono samples (n,), both float32.

    Args:
        samples: at the front end's rate; `flap.audio.resample` brings them there.

    Raises:
        ValueError: there are fewer samples than a frame has.
    """
    (mel_TF,) = fbank(config)([torch.from_numpy(samples)])
    return mel_TF.numpy()


def _window(name: str, length: int) -> torch.Tensor:
    """Kaldi's windows, symmetric, (W,)."""
    if name == "hamming":
        return torch.hamming_window(length, periodic=False, alpha=0.54, beta=0.46)
    hann_W = torch.hann_window(length, periodic=False)
    return hann_W.pow(0.85) if name == "povey" else hann_W


def _bands(config: AudioConfig, fft: int, device: torch.device) -> list[_Band]:
    """The mel filters in a few bands, each without the bins that it gives no weight.

    The Nyquist bin has no weight in Kaldi, and torchaudio's matrix leaves it out.
    """
    from torchaudio.compliance.kaldi import get_mel_banks  # slow to import

    mel_FK, _ = get_mel_banks(config.n_mels, fft, config.sample_rate_hz, _LOW_HZ, 0, 0, 0, 1.0)
    bands, first_mel = [], 0
    for weights_FK in mel_FK.tensor_split(_BANDS):
        used = weights_FK.any(0).nonzero().flatten().tolist() or [0]
        stretch = slice(used[0], used[-1] + 1)
        weights_KF = weights_FK[:, stretch].T.repeat_interleave(2, 0).contiguous().to(device)
        mels = slice(first_mel, first_mel + len(weights_FK))
        bands.append(_Band(mels, slice(2 * stretch.start, 2 * stretch.stop), weights_KF))
        first_mel = mels.stop
    return bands
