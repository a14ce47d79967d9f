"""Recordings in many formats, rows of CLIPS for them, and a run of the stage `audio`."""

import io
from collections.abc import Iterable
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import soundfile

from flap.audio.config import AudioConfig
from flap.audio.extract import extract_shard
from flap.core.schemas import CLIPS, MELS, REJECTS
from flap.core.shards import Row, read_table, write_rows

CONFIG = AudioConfig(
    sample_rate_hz=16000,
    n_mels=128,
    frame_ms=25.0,
    hop_ms=10.0,
    window="hanning",
    max_seconds=12.0,
    min_seconds=0.1,
    min_peak=1e-4,
    max_megabytes=20.0,
)
SNDFILE = {
    "wav": ("WAV", "PCM_16"),
    "wav24": ("WAV", "PCM_24"),
    "float": ("WAV", "FLOAT"),
    "rf64": ("RF64", "PCM_16"),
    "w64": ("W64", "PCM_16"),
    "aiff": ("AIFF", "PCM_16"),
    "caf": ("CAF", "PCM_16"),
    "au": ("AU", "PCM_16"),
    "flac": ("FLAC", "PCM_16"),
    "ogg": ("OGG", "VORBIS"),
    "opus": ("OGG", "OPUS"),
    "mp3": ("MP3", "MPEG_LAYER_III"),
}
LIBAV = {
    "m4a": ("ipod", "aac", {}),
    "fragmented": ("mp4", "aac", {"movflags": "frag_keyframe+empty_moov"}),
    "webm": ("webm", "libopus", {}),
    "mkv": ("matroska", "aac", {}),
    "lame": ("mp3", "libmp3lame", {}),
}
BARE_MP3 = ("mp3", "libmp3lame", {"write_xing": "0", "id3v2_version": "0"})
FORMATS = [*SNDFILE, *LIBAV]


def tone(seconds: float, rate_hz: int, hz: float = 1000.0) -> np.ndarray:
    return (0.5 * np.sin(2 * np.pi * hz * np.arange(int(seconds * rate_hz)) / rate_hz)).astype("f4")


def noise(seconds: float, rate_hz: int, channels: int = 1) -> np.ndarray:
    shape = (int(seconds * rate_hz), channels)
    return np.random.default_rng(0).normal(0, 0.1, shape).astype("f4")


def encoded(kind: str, samples: np.ndarray, rate_hz: int, start_s: float = 0.0) -> bytes:
    """Samples (n,) or (n, channels) as a complete file.

    Args:
        kind: one of `FORMATS`, or "bare mp3" for an MP3 without a frame count.
        start_s: start of the sound in seconds, for the formats of PyAV.
    """
    frames_TC = samples if samples.ndim == 2 else samples[:, None]
    if kind in LIBAV or kind == "bare mp3":
        container = LIBAV.get(kind, BARE_MP3)
        return _libav(*container, frames_TC, rate_hz, start_s)
    container, subtype = SNDFILE[kind]
    buffer = io.BytesIO()
    soundfile.write(buffer, frames_TC, rate_hz, format=container, subtype=subtype)
    return buffer.getvalue()


def _libav(
    container: str,
    codec: str,
    options: dict[str, str],
    frames_TC: np.ndarray,
    rate_hz: int,
    start_s: float,
) -> bytes:
    buffer = io.BytesIO()
    layout = "mono" if frames_TC.shape[1] == 1 else "stereo"
    with av.open(buffer, "w", format=container, options=options) as output:
        stream = output.add_stream(codec, rate=rate_hz)
        stream.layout = layout
        encode(output, stream, frames_TC, layout, round(start_s * rate_hz))
    return buffer.getvalue()


def encode(
    output: av.container.OutputContainer, stream, frames_TC: np.ndarray, layout: str, start: int = 0
) -> None:
    planes = np.ascontiguousarray(frames_TC.T)
    frame = av.AudioFrame.from_ndarray(planes, format="fltp", layout=layout)
    frame.sample_rate = stream.rate
    frame.pts, frame.time_base = start, Fraction(1, stream.rate)
    packed = av.AudioResampler(format=stream.format.name, layout=layout, rate=stream.rate)
    for part in [*packed.resample(frame), None]:
        output.mux(stream.encode(part))


def video(frames_TC: np.ndarray | None, rate_hz: int) -> bytes:
    """An mp4 video of one second, with sound or without (None)."""
    buffer = io.BytesIO()
    with av.open(buffer, "w", format="mp4") as output:
        pictures = output.add_stream("mpeg4", rate=5)
        pictures.width = pictures.height = 32
        pictures.pix_fmt = "yuv420p"
        sound = output.add_stream("aac", rate=rate_hz) if frames_TC is not None else None
        if sound is not None:
            sound.layout = "mono"
        for i in range(5):
            picture = av.VideoFrame.from_ndarray(np.full((32, 32, 3), i, "u1"), format="rgb24")
            picture.pts = i
            output.mux(pictures.encode(picture))
        output.mux(pictures.encode(None))
        if sound is not None:
            encode(output, sound, frames_TC, "mono")
    return buffer.getvalue()


def clip_row(uri: str, offset: int | None = None, n_bytes: int | None = None) -> Row:
    empty: Row = dict.fromkeys(CLIPS.schema({}).names, "")
    known = {"clip_id": uri, "uri": uri, "offset": offset, "n_bytes": n_bytes}
    return empty | known | {"captions": [], "labels": [], "duration_s": None}


def mels_and_rejects(
    folder: Path, clips: Iterable[Row], config: AudioConfig = CONFIG
) -> tuple[dict[str, Row], dict[str, Row]]:
    """Run the stage on `clips`; rows of MELS and of REJECTS by clip_id.

    `folder` receives the tables.
    """
    write_rows(folder / "clips.parquet", list(clips), CLIPS, {})
    target = folder / "out" / "shard-00000.parquet"
    extract_shard(folder / "clips.parquet", target, config)
    mels = read_table(target, MELS).to_pylist()
    rejects_path = target.parent / "_rejects" / target.name
    rejects = read_table(rejects_path, REJECTS).to_pylist() if rejects_path.exists() else []
    return {row["clip_id"]: row for row in mels}, {row["clip_id"]: row for row in rejects}
