"""A recording's bytes → mono float32 samples at the recording's own rate, up to a cap.

soundfile reads WAV, FLAC, Ogg and MP3, whatever the file is called; PyAV takes what soundfile
does not know (`flap.audio.decode_av`).
"""

import math
from dataclasses import dataclass
from io import BytesIO

import numpy as np
import soundfile

from flap.audio.blocks import MonoBlocks, check_rate
from flap.audio.decode_av import decode_av
from flap.audio.levels import peak
from flap.audio.rejected import Rejected
from flap.audio.truncation import check_whole, counts_frames
from flap.core.errors import first_line

_BLOCK_SAMPLES = 1 << 20  # 4 MB
_UNKNOWN_FRAMES = 1 << 62  # libsndfile's count where the header gives none is the largest of int64


@dataclass(frozen=True)
class Recording:
    """Mono samples, full scale = 1, with what the file said of itself."""

    samples: np.ndarray  # (n,) float32, up to the cap
    rate_hz: int
    channels: int
    duration_s: float  # of the whole recording
    peak: float  # largest absolute sample
    clipping: float  # share of samples at full scale in any channel, 0..1


def decode(data: bytes, max_seconds: float) -> Recording:
    """Decode the first `max_seconds` of a recording and average its channels.

    Memory is bounded by the samples of that length in one channel or two, however many there
    are. A recording that ends before its header says is refused, one longer than the cap is not.

    Raises:
        Rejected: unreadable, empty, or with NaN or infinity among its samples.
    """
    check_whole(data)
    try:
        recording = _decode_soundfile(data, max_seconds)
    except (Rejected, MemoryError):
        raise
    except Exception as first:  # on a broken file a decoder may fail in any way
        try:
            recording = _recording(*decode_av(data, max_seconds))
        except (Rejected, MemoryError):
            raise
        except Exception as second:
            # libsndfile's whole message names an address, and equal shards have equal bytes.
            why = getattr(first, "error_string", "") or type(first).__name__
            detail = f"soundfile: {why} PyAV: {first_line(second)}"
            raise Rejected("unreadable", detail) from second
    if not math.isfinite(recording.peak):
        raise Rejected("non_finite", "NaN or infinity among the samples")
    return recording


def _decode_soundfile(data: bytes, max_seconds: float) -> Recording:
    with soundfile.SoundFile(BytesIO(data)) as file:
        check_rate(file.samplerate)
        if not counts_frames(data, file.format):
            raise ValueError("does not say how long it is")
        blocks = MonoBlocks(int(min(file.frames, max_seconds * file.samplerate)))
        while blocks.left:
            frames_TC = file.read(_block_frames(file, blocks.left), "float32", always_2d=True)
            if not len(frames_TC):
                break
            blocks.append(frames_TC)
        if blocks.left and file.frames < _UNKNOWN_FRAMES:
            raise Rejected("unreadable", f"truncated: {blocks.n_frames} of {file.frames} frames")
        whole = file.frames if file.frames < _UNKNOWN_FRAMES else blocks.n_frames
        return _recording(blocks, file.samplerate, file.channels, whole / file.samplerate)


def _block_frames(file: soundfile.SoundFile, left: int) -> int:
    """MP3 at once, of two channels at most: after each call soundfile seeks, there inexactly."""
    return left if file.format == "MP3" else min(left, max(1, _BLOCK_SAMPLES // file.channels))


def _recording(blocks: MonoBlocks, rate_hz: int, channels: int, duration_s: float) -> Recording:
    if not blocks.n_frames:
        raise Rejected("empty", "no samples")
    samples, clipping = blocks.samples(), blocks.n_clipped / blocks.n_frames
    return Recording(samples, rate_hz, channels, duration_s, peak(samples), clipping)
