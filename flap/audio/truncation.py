"""A file's bytes → whether they end before the length that its container tells.

Many decoders read such a file without complaint, and a clip would silently be a shorter one.
What the header does not tell, `flap.audio.decode` sees from the number of samples.
"""

import re
from collections.abc import Callable
from typing import NamedTuple

from flap.audio.rejected import Rejected

_SLACK_BYTES, _SLACK_SHARE = 1024, 0.02  # padding and tags that writers count or forget
_LEAST_UNKNOWN = 0x7FFFF000  # writers to a pipe put such lengths into the header, or 0
_MATROSKA_SEGMENT = b"\x18\x53\x80\x67"
_OGG_HEADER, _OGG_FIRST, _OGG_LAST = 27, 2, 4
_XING_FRAMES, _XING_BYTES = 1, 2
# What follows the last of these is a tag that a player put there.
_MP4_BOXES = frozenset(
    b"ftyp styp moov moof mdat mfra sidx ssix free skip wide uuid meta pnot udta emsg prft".split()
)
_CAF_CHUNKS = frozenset(
    b"desc data pakt kuki chan free info uuid strg mark regn midi ovvw peak umid edct inst".split()
)


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
    if declared is not None:
        slack = min(_SLACK_BYTES, declared * _SLACK_SHARE)
        if declared - slack > len(data):
            raise Rejected("unreadable", f"truncated: {len(data)} of {declared} bytes")


def counts_frames(data: bytes, container: str) -> bool:
    """Whether libsndfile's number of frames is the file's own word, and of all of it.

    It guesses for an MP3 without that number, and of Ogg streams one after the other it sees the
    first.

    Args:
        container: as `soundfile.SoundFile.format` calls it.
    """
    if container == "MP3":
        xing = _xing(data)
        return xing is not None and bool(xing.flags & _XING_FRAMES)
    return container != "OGG" or not _is_chained(data)


def _check_ogg(data: bytes) -> None:
    """A whole stream ends with a whole page that is marked as the last."""
    start = data.rfind(b"OggS")
    if not data[start + 5 : start + 6] or not data[start + 5] & _OGG_LAST:
        raise Rejected("unreadable", "truncated: the Ogg stream has no last page")
    if _ogg_page_end(data, start) > len(data):
        raise Rejected("unreadable", "truncated: the last page of the Ogg stream is cut off")


def _is_chained(data: bytes) -> bool:
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


def _is_unknown(size: int) -> bool:
    return size == 0 or size >= _LEAST_UNKNOWN


def _little(data: bytes, start: int, size: int = 4) -> int:
    return int.from_bytes(data[start : start + size], "little")


def _big(data: bytes, start: int, size: int = 4) -> int:
    return int.from_bytes(data[start : start + size], "big")


def _riff_bytes(data: bytes) -> int | None:
    """By the whole's length and by that of the samples; one of them may be wrong or unknown."""
    ends = [_known(_little(data, 4), 8)]
    position = 12
    while position + 8 <= len(data):
        size = _little(data, position + 4)
        if data.startswith(b"data", position):
            ends.append(_known(size, position + 8))
            break
        position += 8 + size + size % 2
    return max((end for end in ends if end is not None), default=None)


def _rf64_bytes(data: bytes) -> int | None:
    return _little(data, 20, 8) + 8 if data[12:16] == b"ds64" else None


def _form_bytes(data: bytes) -> int | None:
    return _known(_big(data, 4), 8)


def _w64_bytes(data: bytes) -> int | None:
    return _little(data, 16, 8)


def _au_bytes(data: bytes) -> int | None:
    return _known(_big(data, 8), _big(data, 4))


def _known(size: int, start: int) -> int | None:
    return None if _is_unknown(size) else start + size


class _Xing(NamedTuple):
    """The tag that an encoder which can seek puts into an MP3's first frame."""

    frame: int
    flags: int
    fields: int  # where they begin


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
    return _known(_big(data, xing.fields + 4 * (xing.flags & _XING_FRAMES)), xing.frame)


def _mp4_bytes(data: bytes) -> int | None:
    """To the end of the last box; boxes follow one another."""
    position = 0
    while data[position + 4 : position + 8] in _MP4_BOXES:
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
    while data[position : position + 4] in _CAF_CHUNKS:
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
