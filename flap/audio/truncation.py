"""A file's bytes → whether the file is shorter than its container declares.

Many decoders accept a truncated file without an error, and the clip would silently be too short.
`flap.audio.decode` also compares the number of decoded samples with the header.
"""

import re
from collections.abc import Callable
from typing import NamedTuple

from flap.audio.rejected import Rejected

# A file may be a little shorter than declared: some writers count padding or tags wrongly.
_SLACK_BYTES, _SLACK_SHARE = 1024, 0.02
_MIN_UNKNOWN = 0x7FFFF000  # a writer to a pipe cannot know the size: it writes 0, or such a number
_MATROSKA_SEGMENT = b"\x18\x53\x80\x67"
_OGG_HEADER, _OGG_FIRST, _OGG_LAST = 27, 2, 4
_XING_FRAMES, _XING_BYTES = 1, 2
# Bytes after the last of these boxes or chunks are a tag, appended by a player.
_MP4_BOXES = frozenset(
    b"ftyp styp moov moof mdat mfra sidx ssix free skip wide uuid meta pnot udta emsg prft".split()
)
_CAF_CHUNKS = frozenset(
    b"desc data pakt kuki chan free info uuid strg mark regn midi ovvw peak umid edct inst".split()
)


def check_complete(data: bytes) -> None:
    """Compare the length that the container declares with the number of bytes.

    Raises:
        Rejected: the file is truncated (reason "unreadable").
    """
    if data[:4] == b"OggS":
        _check_ogg(data)
        return
    declared_bytes = (
        _mp4_bytes if data[4:8] == b"ftyp" else _DECLARED_BYTES.get(data[:4], _mp3_bytes)
    )
    declared = declared_bytes(data)
    if declared is not None:
        slack = min(_SLACK_BYTES, declared * _SLACK_SHARE)
        if declared - slack > len(data):
            raise Rejected("unreadable", f"truncated: {len(data)} of {declared} bytes")


def has_frame_count(data: bytes, container: str) -> bool:
    """Whether libsndfile's number of frames is the number that the whole file declares.

    libsndfile estimates the number for an MP3 without a Xing tag. Of chained Ogg streams it sees
    only the first.

    Args:
        container: name of the format by `soundfile.SoundFile.format`.
    """
    if container == "MP3":
        xing = _xing(data)
        return xing is not None and bool(xing.flags & _XING_FRAMES)
    return container != "OGG" or not _is_chained(data)


def _check_ogg(data: bytes) -> None:
    """A complete Ogg stream ends with a complete page that has the flag "last page"."""
    start = data.rfind(b"OggS")
    if not data[start + 5 : start + 6] or not data[start + 5] & _OGG_LAST:
        raise Rejected("unreadable", "truncated: the Ogg stream has no last page")
    if _ogg_page_end(data, start) > len(data):
        raise Rejected("unreadable", "truncated: the last page of the Ogg stream is cut off")


def _is_chained(data: bytes) -> bool:
    """Whether a second Ogg stream follows the first."""
    position, ended = 0, False
    while data.startswith(b"OggS", position) and position + _OGG_HEADER <= len(data):
        flags = data[position + 5]
        if ended and flags & _OGG_FIRST:
            return True
        ended |= bool(flags & _OGG_LAST)
        position = _ogg_page_end(data, position)
    return False


def _ogg_page_end(data: bytes, start: int) -> int:
    segments = _big(data, start + 26, 1)
    sizes = data[start + _OGG_HEADER : start + _OGG_HEADER + segments]
    return start + _OGG_HEADER + segments + sum(sizes)


def _little(data: bytes, start: int, size: int = 4) -> int:
    return int.from_bytes(data[start : start + size], "little")


def _big(data: bytes, start: int, size: int = 4) -> int:
    return int.from_bytes(data[start : start + size], "big")


def _riff_bytes(data: bytes) -> int | None:
    """The larger of two declarations: size of the file and size of the samples.

    One of them may be wrong or unknown.
    """
    ends = [_end(_little(data, 4), 8)]
    position = 12
    while position + 8 <= len(data):
        size = _little(data, position + 4)
        if data.startswith(b"data", position):
            ends.append(_end(size, position + 8))
            break
        position += 8 + size + size % 2
    return max((end for end in ends if end is not None), default=None)


def _rf64_bytes(data: bytes) -> int | None:
    return _little(data, 20, 8) + 8 if data[12:16] == b"ds64" else None


def _form_bytes(data: bytes) -> int | None:
    return _end(_big(data, 4), 8)


def _w64_bytes(data: bytes) -> int | None:
    return _little(data, 16, 8)


def _au_bytes(data: bytes) -> int | None:
    return _end(_big(data, 8), _big(data, 4))


def _end(size: int, start: int) -> int | None:
    """`start` + `size`, None if the header leaves the size open."""
    return None if size == 0 or size >= _MIN_UNKNOWN else start + size


class _Xing(NamedTuple):
    """Tag in the first frame of an MP3; encoders that write to a pipe leave it out."""

    frame: int  # position of the first frame
    flags: int
    fields: int  # position of the fields that the flags announce


def _xing(data: bytes) -> _Xing | None:
    start = 0
    while data[start : start + 3] == b"ID3":
        sizes = data[start + 6 : start + 10]
        start += 10 + sum(byte << shift for byte, shift in zip(sizes, (21, 14, 7, 0), strict=False))
    frame = data[start : start + 64]
    tag = re.search(rb"\xff[\xe2-\xff].{7,38}(?:Xing|Info)\x00\x00\x00", frame, re.DOTALL)
    if tag is None or tag.start() or len(frame) <= tag.end():
        return None
    return _Xing(start, frame[tag.end()], start + tag.end() + 1)


def _mp3_bytes(data: bytes) -> int | None:
    xing = _xing(data)
    if xing is None or not xing.flags & _XING_BYTES:
        return None
    return _end(_big(data, xing.fields + 4 * (xing.flags & _XING_FRAMES)), xing.frame)


def _mp4_bytes(data: bytes) -> int | None:
    """End of the last box; boxes follow one another."""
    position = 0
    while data[position + 4 : position + 8] in _MP4_BOXES:
        size = _big(data, position)
        if size == 1:
            size = _big(data, position + 8, 8)
        if size < 8:  # 0 means "to the end of the file"; 2 to 7 are invalid
            return None
        position += size
    return position


def _caf_bytes(data: bytes) -> int | None:
    """End of the last chunk."""
    position = 8
    while data[position : position + 4] in _CAF_CHUNKS:
        size = _big(data, position + 4, 8)
        if size == 0xFFFFFFFFFFFFFFFF:
            return None
        position += 12 + size
    return position


def _matroska_bytes(data: bytes) -> int | None:
    """End of the segment, the one element after the EBML header."""
    header_size, header = _ebml_size(data, 4)
    segment = header + header_size
    if data[segment : segment + 4] != _MATROSKA_SEGMENT:
        return None
    size, start = _ebml_size(data, segment + 4)
    return start + size if size else None


def _ebml_size(data: bytes, start: int) -> tuple[int, int]:
    """An EBML size, stored in 1 to 8 bytes (0 if unknown), and the position after it."""
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
