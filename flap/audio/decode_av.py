"""A recording's bytes → mono blocks, by FFmpeg through PyAV.

For what soundfile does not know: m4a, webm, mp4, the sound of a video.
"""

from io import BytesIO
from itertools import chain

import av

from flap.audio.blocks import MonoBlocks, check_rate
from flap.audio.rejected import Rejected

_SLACK_FRAMES, _SLACK_SHARE = 4, 0.01  # codec frames of padding; rounding of declared lengths
_USUAL_FRAME = 1024
_BLOCK_FRAMES = 16384  # a codec's own frames are so short that handling them costs a third more


def decode_av(data: bytes, max_seconds: float) -> tuple[MonoBlocks, int, int, float]:
    """The first sound stream: its blocks, rate in Hz, channels, and seconds of the whole.

    Raises:
        Rejected: there is no sound, or less than the container declares.
        Exception: whatever FFmpeg finds wrong.
    """
    # A playlist among the recordings must not make FFmpeg open other files or addresses.
    with av.open(BytesIO(data), "r", options={"protocol_whitelist": "none"}) as container:
        if not container.streams.audio:
            raise Rejected("unreadable", f"{container.format.long_name} without sound")
        stream = container.streams.audio[0]
        blocks, rate_hz, channels, end_s = _decode(container, stream, max_seconds)
        decoded_s, declared_s = blocks.n_frames / rate_hz, _declared_seconds(container, stream)
        if not blocks.left:
            guessed_s = container.duration / av.time_base if container.duration else 0.0
            return blocks, rate_hz, channels, max(decoded_s, declared_s or guessed_s)
        slack = (stream.codec_context.frame_size or _USUAL_FRAME) * _SLACK_FRAMES / rate_hz
        if declared_s and max(decoded_s, end_s) + slack < declared_s * (1 - _SLACK_SHARE):
            raise Rejected("unreadable", f"truncated: {decoded_s:.2f} of {declared_s:.2f} s")
        return blocks, rate_hz, channels, decoded_s


def _decode(
    container: av.container.InputContainer, stream: av.AudioStream, max_seconds: float
) -> tuple[MonoBlocks, int, int, float]:
    """Blocks, rate in Hz, channels, and when the sound ends: it may begin late, or pause."""
    # Interleaved float, rate and layout as they are. Not planar: of 8 channels and more PyAV
    # reads a plane too many, and the process dies.
    resampler = av.AudioResampler(format="flt", frame_size=_BLOCK_FRAMES)
    frames = container.decode(stream)
    first = next(frames, None)
    if first is None:
        raise Rejected("empty", "no samples")
    # Of the first frame, not of the stream: some headers say half of it.
    rate_hz, channels = first.sample_rate, first.layout.nb_channels
    check_rate(rate_hz)
    blocks, end_s = MonoBlocks(int(max_seconds * rate_hz)), 0.0
    for frame in chain([first], frames, [None]):  # None: what the resampler still holds
        if frame is not None and frame.time is not None:
            end_s = max(end_s, frame.time + frame.samples / rate_hz)
        for block in resampler.resample(frame):
            blocks.append(block.to_ndarray().reshape(-1, channels))
        if not blocks.left:
            break
    return blocks, rate_hz, channels, end_s


def _declared_seconds(
    container: av.container.InputContainer, stream: av.AudioStream
) -> float | None:
    """What the container says of this stream; None where FFmpeg only guesses."""
    kinds = container.format.name.split(",")
    if ("mov" in kinds or "flac" in kinds) and stream.duration and stream.time_base:
        return float(stream.duration * stream.time_base)
    if "matroska" in kinds:
        hours_minutes_seconds = stream.metadata.get("DURATION", "").split(":")
        if len(hours_minutes_seconds) == 3:
            hours, minutes, seconds = map(float, hours_minutes_seconds)
            return (hours * 60 + minutes) * 60 + seconds
        if len(container.streams) == 1 and container.duration:
            return container.duration / av.time_base
    return None
