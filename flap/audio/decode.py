"""A recording's bytes → mono float32 samples at the recording's rate, up to a maximal length.

soundfile reads WAV, FLAC, Ogg and MP3; the file's name does not matter. PyAV reads the formats
that soundfile does not know (`flap.audio.decode_av`).
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
from flap.audio.truncation import check_complete, has_frame_count
from flap.core.errors import first_line

_BLOCK_SAMPLES = 1 << 20  # 4 MB
_UNKNOWN_FRAMES = 1 << 62  # without a count in the header libsndfile reports the largest int64


@dataclass(frozen=True)
class Recording:
    """Mono samples, full scale = 1, and the properties of the file."""

    samples: np.ndarray  # (n,) float32, at most `max_seconds`
    rate_hz: int
    channels: int
    duration_s: float  # of the whole recording
    peak: float  # largest absolute sample
    clipping: float  # share of frames with any channel at full scale, 0..1


def decode(data: bytes, max_seconds: float) -> Recording:
    """Decode the first `max_seconds` of a recording and average its channels.

    Memory is bounded by one or two channels of `max_seconds`, for any number of channels.

    Raises:
        Rejected: the recording is unreadable, empty, shorter than its header declares, or has
            NaN or infinity among its samples. A recording longer than `max_seconds` is not
            rejected.
    """
    check_complete(data)
    try:
        recording = _decode_soundfile(data, max_seconds)
    except (Rejected, MemoryError):
        raise
    except Exception as first:  # a broken file can raise any exception in a decoder
        try:
            recording = _recording(*decode_av(data, max_seconds))
        except (Rejected, MemoryError):
            raise
        except Exception as second:
            # libsndfile's full message contains a memory address; equal shards need equal bytes.
            why = getattr(first, "error_string", "") or type(first).__name__
            detail = f"soundfile: {why} PyAV: {first_line(second)}"
            raise Rejected("unreadable", detail) from second
    if not math.isfinite(recording.peak):
        raise Rejected("non_finite", "NaN or infinity among the samples")
    return recording


def _decode_soundfile(data: bytes, max_seconds: float) -> Recording:
    with soundfile.SoundFile(BytesIO(data)) as file:
        check_rate(file.samplerate)
        if not has_frame_count(data, file.format):
            raise ValueError("does not say how long it is")
        blocks = MonoBlocks(int(min(file.frames, max_seconds * file.samplerate)))
        while blocks.n_missing:
            frames_TC = file.read(_block_frames(file, blocks.n_missing), "float32", always_2d=True)
            if not len(frames_TC):
                break
            blocks.append(frames_TC)
        if blocks.n_missing and file.frames < _UNKNOWN_FRAMES:
            raise Rejected("unreadable", f"truncated: {blocks.n_frames} of {file.frames} frames")
        n_frames = file.frames if file.frames < _UNKNOWN_FRAMES else blocks.n_frames
        return _recording(blocks, file.samplerate, file.channels, n_frames / file.samplerate)


def _block_frames(file: soundfile.SoundFile, n_missing: int) -> int:
    """Frames to read in the next call.

    An MP3 is read in one call: soundfile seeks after each call, and seeking in an MP3 is inexact.
    An MP3 has two channels at most, so the memory stays bounded.
    """
    if file.format == "MP3":
        return n_missing
    return min(n_missing, max(1, _BLOCK_SAMPLES // file.channels))


def _recording(blocks: MonoBlocks, rate_hz: int, channels: int, duration_s: float) -> Recording:
    if not blocks.n_frames:
        raise Rejected("empty", "no samples")
    samples, clipping = blocks.samples(), blocks.n_clipped / blocks.n_frames
    return Recording(samples, rate_hz, channels, duration_s, peak(samples), clipping)
