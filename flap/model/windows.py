"""Log-mels of any length → windows of the model's length.

A log-mel is cropped or padded, then SpecAugment sets stripes to zero, and then the encoder
normalises. So padding and stripes become the same constant, as in MAViL.
"""

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np
import torch

from flap.model.config import SpecAugment

Draw = Callable[[], float]  # returns the position 0 ≤ p < 1 of a crop


@dataclass(frozen=True)
class Window:
    """The input of the encoder for one clip."""

    mel_CTF: np.ndarray  # float32; C = 1, or with fusion 4: whole clip, front, middle, back
    longer: bool  # the clip is longer than the window


@dataclass(frozen=True)
class WindowBatch:
    """Windows of B clips as tensors, un-normalised."""

    mel_BCTF: torch.Tensor
    longer_B: torch.Tensor


def make_window(mel_TF: np.ndarray, clip_frames: int, fusion: bool, draw: Draw) -> Window:
    """The window of one clip; `draw` gives the positions of crops."""
    if fusion:
        return fusion_window(mel_TF, clip_frames, draw)
    mel_CTF = crop_or_pad(mel_TF, clip_frames, draw())[np.newaxis]
    return Window(mel_CTF, len(mel_TF) > clip_frames)


def middle_windows(mels: Iterable[np.ndarray], clip_frames: int, fusion: bool) -> WindowBatch:
    """Windows for evaluation: without randomness, each crop is from the middle."""
    return stack(make_window(mel_TF, clip_frames, fusion, lambda: 0.5) for mel_TF in mels)


def covering_windows(mel_TF: np.ndarray, clip_frames: int, fusion: bool) -> WindowBatch:
    """The smallest number of evenly spaced windows that cover every frame of a log-mel."""
    spare = max(0, len(mel_TF) - clip_frames)
    starts = np.linspace(0, spare, 1 + math.ceil(spare / clip_frames)).astype(int)
    parts = [mel_TF[start : start + clip_frames] for start in starts]
    return middle_windows(parts, clip_frames, fusion)


def stack(windows: Iterable[Window]) -> WindowBatch:
    """Collate windows to a batch."""
    windows = list(windows)
    return WindowBatch(
        torch.from_numpy(np.stack([window.mel_CTF for window in windows])),
        torch.tensor([window.longer for window in windows]),
    )


def crop_or_pad(mel_TF: np.ndarray, clip_frames: int, position: float) -> np.ndarray:
    """A log-mel with exactly `clip_frames` frames, float32.

    A shorter log-mel is padded with zeros at the end, as in MAViL. A longer one is cropped.

    Args:
        position: place of the crop among all possible ones: 0 front, 0.5 middle, 1 back.
    """
    spare = len(mel_TF) - clip_frames
    if spare >= 0:
        start = min(int(position * (spare + 1)), spare)
        return _float32(mel_TF[start : start + clip_frames])
    return np.pad(_float32(mel_TF), ((0, -spare), (0, 0)))


def fusion_window(mel_TF: np.ndarray, clip_frames: int, draw: Draw) -> Window:
    """The four channels of LS-CLAP.

    A clip longer than the window: the whole log-mel resized to the window, and three crops that
    start in the front, middle and back third of the possible starts. Another clip: four copies
    of its padded log-mel.
    """
    if len(mel_TF) <= clip_frames:
        padded_TF = crop_or_pad(mel_TF, clip_frames, 0)
        return Window(np.broadcast_to(padded_TF, (4, *padded_TF.shape)), longer=False)
    crops = []
    for third in np.array_split(np.arange(len(mel_TF) - clip_frames + 1), 3):
        start = third[int(draw() * len(third))] if len(third) else 0
        crops.append(mel_TF[start : start + clip_frames])
    return Window(np.stack([squeeze(mel_TF, clip_frames), *crops], dtype=np.float32), longer=True)


def squeeze(mel_TF: np.ndarray, clip_frames: int) -> np.ndarray:
    """The log-mel resized along time to `clip_frames`, by linear interpolation of frame centres."""
    centres = (np.arange(clip_frames) + 0.5) * len(mel_TF) / clip_frames - 0.5
    before = np.floor(centres).astype(int).clip(0, len(mel_TF) - 2)
    weight_T1 = (centres - before).astype(np.float32)[:, np.newaxis]
    mel_TF = _float32(mel_TF)
    return mel_TF[before] * (1 - weight_T1) + mel_TF[before + 1] * weight_T1


def spec_augment(window: Window, stripes: SpecAugment, random: np.random.Generator) -> Window:
    """Set one stripe of frames and one stripe of mel bins to zero, the same in all channels.

    The width is uniform in 0..max, the place uniform among those where the stripe fits.
    """
    if not (stripes.max_frames or stripes.max_bins):
        return window
    mel_CTF = window.mel_CTF.copy()
    frames, bins = mel_CTF.shape[1:]
    mel_CTF[:, _stripe(frames, stripes.max_frames, random)] = 0
    mel_CTF[:, :, _stripe(bins, stripes.max_bins, random)] = 0
    return Window(mel_CTF, window.longer)


def _stripe(size: int, largest: int, random: np.random.Generator) -> slice:
    width = int(random.integers(0, min(largest, size) + 1))
    start = int(random.integers(0, size - width + 1))
    return slice(start, start + width)


def _float32(mel_TF: np.ndarray) -> np.ndarray:
    """As float32. torch converts fp16 about twenty times as fast as numpy."""
    return torch.from_numpy(mel_TF).float().numpy()
