"""Samples → the bytes of a recording in many formats; recordings that are broken on purpose.

Equal samples give equal bytes. libsndfile alone does not do so: its Ogg streams have a random
serial number and its float WAVs contain the time. This module replaces both.
"""

import io
import struct
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import av
import numpy as np
import soundfile
from scipy.io import wavfile

from flap.sources.demo.dsp import Wave

Encoder = Callable[[Wave, int], bytes]


@dataclass(frozen=True)
class Format:
    """A file format and its share of the corpus."""

    suffix: str
    share: float
    encode: Encoder


def _sndfile(container: str, subtype: str, samples: Wave, rate_hz: int) -> bytes:
    buffer = io.BytesIO()
    soundfile.write(buffer, samples, rate_hz, format=container, subtype=subtype)
    return buffer.getvalue()


def _float_wav(samples: Wave, rate_hz: int) -> bytes:
    buffer = io.BytesIO()
    wavfile.write(buffer, rate_hz, samples.astype(np.float32))
    return buffer.getvalue()


def _vorbis(samples: Wave, rate_hz: int) -> bytes:
    return with_ogg_serial(_sndfile("OGG", "VORBIS", samples, rate_hz), serial=1)


def _libav(
    container: str, codec: str, options: dict[str, str], samples: Wave, rate_hz: int
) -> bytes:
    buffer = io.BytesIO()
    layout = "mono" if samples.shape[1] == 1 else "stereo"
    planes = np.ascontiguousarray(samples.T, dtype=np.float32)
    frame = av.AudioFrame.from_ndarray(planes, format="fltp", layout=layout)
    frame.sample_rate = rate_hz
    with av.open(buffer, "w", format=container, options={"fflags": "+bitexact"}) as output:
        stream = output.add_stream(codec, rate=rate_hz, options={"flags": "+bitexact"} | options)
        assert isinstance(stream, av.AudioStream)
        stream.layout = layout
        for packet in [*stream.encode(frame), *stream.encode(None)]:
            output.mux(packet)
    return buffer.getvalue()


FLAC = Format(".flac", 0.3, partial(_sndfile, "FLAC", "PCM_16"))
WAV = Format(".wav", 0.2, partial(_sndfile, "WAV", "PCM_16"))
FORMATS = (
    FLAC,
    WAV,
    Format(".wav", 0.1, partial(_sndfile, "WAV", "PCM_24")),
    Format(".wav", 0.1, _float_wav),
    Format(".ogg", 0.15, _vorbis),
    Format(".mp3", 0.075, partial(_libav, "mp3", "libmp3lame", {"compression_level": "9"})),
    Format(".m4a", 0.075, partial(_libav, "ipod", "aac", {"aac_coder": "fast"})),
)


def _truncated(samples: Wave, rate_hz: int) -> bytes:
    whole = FLAC.encode(samples, rate_hz)
    return whole[: len(whole) // 3]


def _too_short(samples: Wave, rate_hz: int) -> bytes:
    return WAV.encode(samples[: rate_hz // 20], rate_hz)


# Reason of the reject that stage `audio` must write → suffix and encoder; None: write no file.
BROKEN: dict[str, tuple[str, Encoder | None]] = {
    "truncated": (".flac", _truncated),
    "empty": (".wav", lambda samples, rate_hz: b""),
    "silent": (".wav", lambda samples, rate_hz: WAV.encode(np.zeros_like(samples), rate_hz)),
    "missing": (".flac", None),
    "too_short": (".wav", _too_short),
}


def with_ogg_serial(ogg: bytes, serial: int) -> bytes:
    """The Ogg stream with the given serial number and a new checksum on each page."""
    pages, start = bytearray(ogg), 0
    while start < len(pages):
        n_segments = pages[start + 26]
        end = start + 27 + n_segments
        end += sum(pages[start + 27 : end])
        struct.pack_into("<I", pages, start + 14, serial)
        struct.pack_into("<I", pages, start + 22, 0)
        struct.pack_into("<I", pages, start + 22, _ogg_crc(bytes(pages[start:end])))
        start = end
    return bytes(pages)


_REVERSED = bytes(int(f"{byte:08b}"[::-1], 2) for byte in range(256))


def _ogg_crc(page: bytes) -> int:
    """Ogg's CRC: the polynomial of zlib, with reversed bits and without the two inversions."""
    reflected = zlib.crc32(page.translate(_REVERSED), 0xFFFFFFFF) ^ 0xFFFFFFFF
    return int(f"{reflected:032b}"[::-1], 2)
