"""A folder of 300 recordings with many kinds of faults, and a few odd but good recordings."""

import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from audio_files import CONFIG, clip_row, encoded, mels_and_rejects, noise, video

from flap.audio.extract import extract
from flap.core.schemas import REJECT_REASONS

NOBODY = 65534
CARRIERS = {"mono": (16000, 1), "surround": (44100, 8), "studio": (96000, 2)}
CUT_OFF = {
    "wav": CARRIERS,
    "flac": CARRIERS,
    "ogg": {"mono": (16000, 1), "stereo": (44100, 2), "surround": (48000, 8)},
    "mp3": {"mono": (16000, 1), "stereo": (44100, 2)},
    "m4a": {"mono": (16000, 1), "stereo": (44100, 2)},
}
PNG = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR\0\0\0\1\0\0\0\1\x08\0\0\0\0:~\x9bU"
NAMES = (
    "plain",
    "🐕 barks",
    "two\nlines",
    "späte Straße",
    "a'b\"c;d",
    "x" * 120,
    "#1 100% ?*{}<b>",
    " tab\tand space ",
)


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder that every user may read; pytest's `tmp_path` belongs to one user."""
    path = Path(tempfile.mkdtemp())
    path.chmod(0o777)
    yield path
    shutil.rmtree(path)


def broken(folder: Path) -> dict[str, str]:
    """Write each fault under many names; return path → expected reason."""
    faults: list[tuple[str, str, Callable[[Path], object]]] = [
        ("wav", "empty", lambda path: path.touch()),
        ("wav", "unreadable", lambda path: path.write_text("This is no sound.\n" * 50)),
        ("wav", "unreadable", lambda path: path.write_bytes(PNG + bytes(100))),
        ("mp4", "unreadable", _writing(video(None, 16000))),
        ("flac", "unreadable", lambda path: path.mkdir()),
        ("wav", "unreadable", lambda path: path.symlink_to(path)),
        ("wav", "missing", lambda path: path.symlink_to("nowhere")),
        ("wav", "missing", lambda path: None),
        ("wav", "unreadable", _without_permission),
        ("wav", "too_large", _sparse),
    ]
    for rate_hz, channels in CARRIERS.values():
        for reason, samples in _bad_samples(rate_hz, channels):
            faults.append(("wav", reason, _writing(encoded("float", samples, rate_hz))))
    for kind, carriers in CUT_OFF.items():
        for rate_hz, channels in carriers.values():
            whole = encoded(kind, noise(1.0, rate_hz, channels), rate_hz)
            cut = _writing(whole[: len(whole) * 2 // 3])
            faults.append((kind, "unreadable", cut))
    expected = {}
    for name in NAMES:
        for i, (suffix, reason, make) in enumerate(faults):
            path = folder / f"{i} {name}.{suffix}"
            make(path)
            expected[str(path)] = reason
    return expected


def _bad_samples(rate_hz: int, channels: int) -> Iterator[tuple[str, np.ndarray]]:
    for value in (np.nan, np.inf):
        frames_TC = noise(0.2, rate_hz, channels)
        frames_TC[-1, -1] = value
        yield "non_finite", frames_TC
    yield "too_short", noise(0.2, rate_hz, channels)[:1]
    yield "empty", noise(0.2, rate_hz, channels)[:0]
    yield "silent", np.zeros((rate_hz // 2, channels), "f4")


def _writing(data: bytes) -> Callable[[Path], object]:
    return lambda path: path.write_bytes(data)


def _without_permission(path: Path) -> None:
    path.write_bytes(encoded("wav", noise(1.0, 16000), 16000))
    path.chmod(0)


def _sparse(path: Path) -> None:
    with path.open("wb") as file:
        file.truncate(1 << 40)


def good_recordings(folder: Path) -> set[str]:
    recordings = {
        "8 channels.wav": encoded("wav", noise(1.0, 16000, 8), 16000),
        "96 kHz.flac": encoded("flac", noise(1.0, 96000), 96000),
        "really flac.mp3": encoded("flac", noise(1.0, 16000), 16000),
        "really m4a.wav": encoded("m4a", noise(1.0, 44100), 44100),
        "🎺.ogg": encoded("ogg", noise(1.0, 44100, 2), 44100),
        "new\nline.opus": encoded("opus", noise(1.0, 48000), 48000),
        "film.mp4": video(noise(1.0, 44100), 44100),
        "no suffix": encoded("mp3", noise(1.0, 22050), 22050),
    }
    for name, data in recordings.items():
        (folder / name).write_bytes(data)
    return {str(folder / name) for name in recordings}


@contextmanager
def as_nobody(uri: str) -> Iterator[None]:
    """Drop root's permission to read every file; another user has no such permission."""
    extract(uri, None, None, CONFIG)  # runs the lazy imports, which "nobody" may not read
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(NOBODY)
    try:
        yield
    finally:
        os.seteuid(0)


def test_every_broken_recording_is_a_reject_and_every_good_one_has_a_mel(folder: Path) -> None:
    expected, good = broken(folder), good_recordings(folder)
    assert len(expected) + len(good) >= 300
    clips = [clip_row(uri) for uri in sorted([*expected, *good])]
    with as_nobody(next(iter(good))):
        mels, rejects = mels_and_rejects(folder, clips)
    assert {uri: row["reason"] for uri, row in rejects.items()} == expected
    assert set(mels) == good
    assert {row["reason"] for row in rejects.values()} <= REJECT_REASONS
    assert all(row["stage"] == "audio" and row["detail"] for row in rejects.values())
