"""A recording's bytes → mono float32 samples at the recording's own rate.

soundfile reads WAV, FLAC, Ogg and MP3; PyAV takes what soundfile does not know (m4a, webm,
mp4, opus in odd containers, the sound of a video).
"""

from dataclasses import dataclass
from io import BytesIO

import av
import numpy as np
import soundfile

from flap.schemas import REJECT_REASONS


class Rejected(Exception):
    """The recording cannot be used; becomes a row of REJECTS."""

    def __init__(self, reason: str, detail: str) -> None:
        assert reason in REJECT_REASONS
        super().__init__(f"{reason}: {detail}")
        self.reason, self.detail = reason, detail


@dataclass(frozen=True)
class Recording:
    """Mono samples, full scale = 1, with what the file said of itself."""

    samples: np.ndarray  # (n,) float32
    rate_hz: int
    channels: int


def decode(data: bytes) -> Recording:
    """Decode a whole recording and average its channels.

    Raises:
        Rejected: unreadable, empty, or with NaN or infinity among its samples.
    """
    if not data:
        raise Rejected("empty", "file of 0 bytes")
    try:
        frames_TC, rate_hz = _decode_soundfile(data)
    except Rejected:
        raise
    except Exception as first:  # on a broken file a decoder may fail in any way
        try:
            frames_TC, rate_hz = _decode_av(data)
        except Rejected:
            raise
        except Exception as second:
            raise Rejected("unreadable", f"soundfile: {first}; PyAV: {second}") from second
    if not len(frames_TC):
        raise Rejected("empty", "no samples")
    if not np.isfinite(frames_TC).all():
        raise Rejected("non_finite", "NaN or infinity among the samples")
    return Recording(frames_TC.mean(axis=1), rate_hz, frames_TC.shape[1])


def _decode_soundfile(data: bytes) -> tuple[np.ndarray, int]:
    with soundfile.SoundFile(BytesIO(data)) as file:
        frames_TC = file.read(dtype="float32", always_2d=True)
        if len(frames_TC) < file.frames:
            raise Rejected("unreadable", f"truncated: {len(frames_TC)} of {file.frames} frames")
        return frames_TC, file.samplerate


def _decode_av(data: bytes) -> tuple[np.ndarray, int]:
    # A playlist among the recordings must not make FFmpeg open other files or addresses.
    with av.open(BytesIO(data), "r", options={"protocol_whitelist": "none"}) as container:
        stream = container.streams.audio[0]
        resampler = av.AudioResampler(format="fltp")  # planar float, rate and layout as they are
        blocks = [
            block.to_ndarray()
            for frame in container.decode(stream)
            for block in resampler.resample(frame)
        ]
        if not blocks:
            raise Rejected("empty", "no samples")
        return np.concatenate(blocks, axis=1).T, stream.rate
