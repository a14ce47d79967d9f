"""A file's bytes → whether they end before the length that its container tells.

Many decoders read such a file without complaint, and a clip would silently be a shorter one.
What the header does not tell, `flap.audio.decode` sees from the number of samples.
"""

import re
from collections.abc import Callable

from flap.audio.rejected import Rejected

_SLACK_BYTES = 1024  # padding and tags that writers count or forget
_UNKNOWN = (0, 0xFFFFFFFF)  # lengths that a writer to a pipe leaves in the header
_MATROSKA_SEGMENT = b"\x18\x53\x80\x67"
_OGG_HEADER, _OGG_END_OF_STREAM = 27, 4


def check_whole(data: bytes) -> None:
    """Compare what the container says of its length with what is there.

    Raises:
        Rejected: unreadable, for it is cut off.
    """
    if data[:4] == b"OggS":
        _check_ogg(data)
        return
    declared_bytes = (
        _mp4_bytes if data[4:8] == b"ftyp" else _DECLARED_BYTES.get(data[:4], _mp3_bytes)
    )
    declared = declared_bytes(data)
    if declared is not None and declared - _SLACK_BYTES > len(data):
        raise Rejected("unreadable", f"truncated: {len(data)} of {declared} bytes")


def _check_ogg(data: bytes) -> None:
    """A whole stream ends with a whole page that is marked as the last."""
    page = data[data.rfind(b"OggS") :]
    segments = page[_OGG_HEADER : _OGG_HEADER + page[26]] if len(page) >= _OGG_HEADER else b""
    size = _OGG_HEADER + len(segments) + sum(segments)
    if not segments or len(page) < size or not page[5] & _OGG_END_OF_STREAM:
        raise Rejected("unreadable", "truncated: the Ogg stream has no last page")


def _little(data: bytes, start: int, size: int = 4) -> int:
    return int.from_bytes(data[start : start + size], "little")


def _big(data: bytes, start: int, size: int = 4) -> int:
    return int.from_bytes(data[start : start + size], "big")


def _riff_bytes(data: bytes) -> int | None:
    size = _little(data, 4)
    return None if size in _UNKNOWN else size + 8


def _rf64_bytes(data: bytes) -> int | None:
    return _little(data, 20, 8) + 8 if data[12:16] == b"ds64" else None


def _form_bytes(data: bytes) -> int | None:
    size = _big(data, 4)
    return None if size in _UNKNOWN else size + 8


def _w64_bytes(data: bytes) -> int | None:
    return _little(data, 16, 8)


def _au_bytes(data: bytes) -> int | None:
    size = _big(data, 8)
    return None if size in _UNKNOWN else size + _big(data, 4)


def _mp3_bytes(data: bytes) -> int | None:
    """By the Xing or Info tag, which an encoder that can seek puts into the first frame."""
    start = 0
    while data[start : start + 3] == b"ID3":
        sizes = data[start + 6 : start + 10]
        start += 10 + sum(byte << shift for byte, shift in zip(sizes, (21, 14, 7, 0), strict=False))
    frame = data[start : start + 64]
    tag = re.search(rb"\xff[\xe2-\xff].{7,38}(?:Xing|Info)\x00\x00\x00", frame, re.DOTALL)
    if tag is None or tag.start() or len(frame) <= tag.end():
        return None
    flags, position = frame[tag.end()], start + tag.end() + 1
    if not flags & 2:
        return None
    size = _big(data, position + 4 * (flags & 1))
    return None if size in _UNKNOWN else start + size


def _mp4_bytes(data: bytes) -> int | None:
    """To the end of the last box; boxes follow one another."""
    position = 0
    while position + 8 <= len(data):
        size = _big(data, position)
        if size == 1:
            size = _big(data, position + 8, 8)
        if size < 8:  # 0: to the end of the file; others are no box
            return None
        position += size
    return position


def _caf_bytes(data: bytes) -> int | None:
    """To the end of the last chunk."""
    position = 8
    while position + 12 <= len(data):
        size = _big(data, position + 4, 8)
        if size == 0xFFFFFFFFFFFFFFFF:
            return None
        position += 12 + size
    return position


def _matroska_bytes(data: bytes) -> int | None:
    """To the end of the segment, which follows the EBML header and is all the rest."""
    header_size, header = _ebml_size(data, 4)
    segment = header + header_size
    if data[segment : segment + 4] != _MATROSKA_SEGMENT:
        return None
    size, start = _ebml_size(data, segment + 4)
    return start + size if size else None


def _ebml_size(data: bytes, start: int) -> tuple[int, int]:
    """A size of 1 to 8 bytes, 0 for unknown, and where it ends."""
    width = 9 - _big(data, start, 1).bit_length()
    ones = (1 << 7 * width) - 1
    size = _big(data, start, width) & ones
    return (0 if size == ones else size), start + width


_DECLARED_BYTES: dict[bytes, Callable[[bytes], int | None]] = {
    b"RIFF": _riff_bytes,
    b"RIFX": _form_bytes,
    b"RF64": _rf64_bytes,
    b"BW64": _rf64_bytes,
    b"FORM": _form_bytes,
    b"riff": _w64_bytes,
    b".snd": _au_bytes,
    b"caff": _caf_bytes,
    b"\x1aE\xdf\xa3": _matroska_bytes,
}
