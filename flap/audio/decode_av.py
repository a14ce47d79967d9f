"""A recording's bytes → mono blocks, by FFmpeg through PyAV.

PyAV decodes the formats that soundfile does not know: m4a, webm, mp4, the sound of a video.
"""

from io import BytesIO
from itertools import chain

import av

from flap.audio.blocks import MonoBlocks, check_rate
from flap.audio.rejected import Rejected

# A recording may be shorter than declared: by codec frames of padding, by rounding of the length.
_SLACK_CODEC_FRAMES, _SLACK_SHARE = 4, 0.01
_DEFAULT_CODEC_FRAME = 1024
_BLOCK_FRAMES = 16384  # blocks as short as a codec's frames would cost a third more time


def decode_av(data: bytes, max_seconds: float) -> tuple[MonoBlocks, int, int, float]:
    """The first audio stream: its blocks, rate in Hz, channels, and full duration in seconds.

    Raises:
        Rejected: the file has no sound, or less sound than the container declares.
        Exception: FFmpeg cannot decode the file; PyAV has many exception classes.
    """
    # A playlist must not make FFmpeg open other files or URLs.
    with av.open(BytesIO(data), "r", options={"protocol_whitelist": "none"}) as container:
        if not container.streams.audio:
            raise Rejected("unreadable", f"{container.format.long_name} without sound")
        stream = container.streams.audio[0]
        blocks, rate_hz, channels, end_s = _decode(container, stream, max_seconds)
        decoded_s, declared_s = blocks.n_frames / rate_hz, _declared_seconds(container, stream)
        if not blocks.n_missing:
            guessed_s = container.duration / av.time_base if container.duration else 0.0
            return blocks, rate_hz, channels, max(decoded_s, declared_s or guessed_s)
        codec_frame = stream.codec_context.frame_size or _DEFAULT_CODEC_FRAME
        slack_s = codec_frame * _SLACK_CODEC_FRAMES / rate_hz
        if declared_s and max(decoded_s, end_s) + slack_s < declared_s * (1 - _SLACK_SHARE):
            raise Rejected("unreadable", f"truncated: {decoded_s:.2f} of {declared_s:.2f} s")
        return blocks, rate_hz, channels, decoded_s


def _decode(
    container: av.container.InputContainer, stream: av.AudioStream, max_seconds: float
) -> tuple[MonoBlocks, int, int, float]:
    """Blocks, rate in Hz, channels, and the end time of the sound in seconds.

    The end time can exceed the length of the blocks: the sound may start late or pause.
    """
    # The format is interleaved float; rate and layout stay. Planar float would crash the process:
    # for 8 or more channels PyAV reads one plane too many.
    resampler = av.AudioResampler(format="flt", frame_size=_BLOCK_FRAMES)
    frames = container.decode(stream)
    first = next(frames, None)
    if first is None:
        raise Rejected("empty", "no samples")
    # The first frame tells the true rate; some stream headers declare half of it.
    rate_hz, channels = first.sample_rate, first.layout.nb_channels
    check_rate(rate_hz)
    blocks, end_s = MonoBlocks(int(max_seconds * rate_hz)), 0.0
    for frame in chain([first], frames, [None]):  # None flushes the resampler
        if frame is not None and frame.time is not None:
            end_s = max(end_s, frame.time + frame.samples / rate_hz)
        for block in resampler.resample(frame):
            blocks.append(block.to_ndarray().reshape(-1, channels))
        if not blocks.n_missing:
            break
    return blocks, rate_hz, channels, end_s


def _declared_seconds(
    container: av.container.InputContainer, stream: av.AudioStream
) -> float | None:
    """The stream's duration as the container declares it; None if FFmpeg would only estimate."""
    formats = container.format.name.split(",")
    if ("mov" in formats or "flac" in formats) and stream.duration and stream.time_base:
        return float(stream.duration * stream.time_base)
    if "matroska" in formats:
        hours_minutes_seconds = stream.metadata.get("DURATION", "").split(":")
        if len(hours_minutes_seconds) == 3:
            hours, minutes, seconds = map(float, hours_minutes_seconds)
            return (hours * 60 + minutes) * 60 + seconds
        if len(container.streams) == 1 and container.duration:
            return container.duration / av.time_base
    return None
