"""Mono waveforms → log-mels (frames, mel bins), the input of MAViL and AudioMAE.

The values equal torchaudio.compliance.kaldi.fbank with htk_compat, without energy and without
dither, up to float32 rounding. On one core this code is about three times as fast
(`benchmarks.fbank`): it applies pre-emphasis once per waveform instead of once per frame, its
tiles stay in the CPU cache, and it skips the zeros of the mel filters.

The log-mels are neither normalised nor padded; models do both.

Letters: N samples, T frames, W samples of a frame, F mel bins, K numbers of a power spectrum
(two for each frequency bin: the squares of its real and its imaginary part).
"""

from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

import numpy as np
import torch

from flap.audio.config import AudioConfig

_PRE_EMPHASIS = 0.97
_LOW_HZ = 20.0
_BANDS = 8  # with more bands the extra calls cost more time than they save
_TILE_FRAMES = {"cpu": 512, "cuda": 65536}  # 1 MB fits into a core's cache; 128 MB on a GPU


class _Band(NamedTuple):
    """Adjacent mel filters and the range of the spectrum in which they are not zero."""

    mels: slice
    powers: slice
    weights_KF: torch.Tensor


class Fbank:
    """Kaldi's fbank for one front end on one device; `fbank` returns a cached instance."""

    def __init__(self, config: AudioConfig, device: torch.device) -> None:
        self._frame, self._hop = config.frame_samples, config.hop_samples
        self._fft = 1 << (self._frame - 1).bit_length()
        self._n_mels, self._device = config.n_mels, device
        self._tile_frames = _TILE_FRAMES.get(device.type, _TILE_FRAMES["cuda"])
        self._window_W = _window(config.window, self._frame).to(device)
        self._bands = _bands(config, self._fft, device)

    def __call__(self, waveforms: Sequence[torch.Tensor]) -> list[torch.Tensor]:
        """Log-mels (T, F) of mono waveforms (N,), all float32 and on the device.

        The waveforms may differ in length. The mean of each waveform is subtracted. As in Kaldi,
        an incomplete last frame is dropped: 10 s give 998 frames at 25 ms / 10 ms.

        Raises:
            ValueError: a waveform is shorter than a frame.
        """
        counts = [1 + (len(waveform) - self._frame) // self._hop for waveform in waveforms]
        if min(counts) < 1:
            raise ValueError(f"a waveform has less than the {self._frame} samples of one frame")
        joined_N, starts = self._join(waveforms)
        mel_TF = self._log_mel(joined_N)
        return [mel_TF[start : start + n] for start, n in zip(starts, counts, strict=True)]

    def _join(self, waveforms: Sequence[torch.Tensor]) -> tuple[torch.Tensor, list[int]]:
        """All waveforms in one tensor, and the index of each waveform's first frame.

        Each waveform starts at a multiple of the hop. The two or three frames that overlap two
        waveforms are computed and then discarded.
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
        """Log-mel (T, F) of centred samples (N,).

        Kaldi subtracts the mean m from each frame, then applies pre-emphasis. With
        p_i = x_i - .97 x_(i-1), computed once for the waveform, a sample of a frame becomes
        (x_i - m) - .97 (x_(i-1) - m) = p_i - .03 m. The first sample of a frame counts as its own
        predecessor: (x_0 - m) - .97 (x_0 - m) = .03 x_0 - .03 m.
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
    """The `Fbank` of a front end, built once per process; the default device is the CPU."""
    return Fbank(config, device or torch.device("cpu"))


def log_mel(samples: np.ndarray, config: AudioConfig) -> np.ndarray:
    """Log-mel (n_frames, n_mels) of mono samples (n,), both float32.

    Args:
        samples: at the front end's sample rate (see `flap.audio.resample`).

    Raises:
        ValueError: there are fewer samples than one frame has.
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
    """The mel filters in a few bands, each without the frequency bins of zero weight.

    The Nyquist bin has zero weight in Kaldi; torchaudio's matrix does not contain it.
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
