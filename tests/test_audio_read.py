"""Bytes of recordings: files, ranges, URLs, and what cannot or must not be read."""

import errno
import os
from pathlib import Path

import fsspec
import pytest

from flap.audio.read import identity, read_recording
from flap.audio.rejected import Rejected
from flap.core.errors import UserError

MAX_BYTES = 1000
DATA = bytes(range(256)) * 2


@pytest.fixture(params=["path", "relative", "memory"])
def uri(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """`DATA` as a file, and what is named after it in the same folder."""
    if request.param == "memory":
        fsspec.filesystem("memory").pipe_file("/folder/x.wav", DATA)
        return "memory://folder/x.wav"
    (tmp_path / "x.wav").write_bytes(DATA)
    monkeypatch.chdir(tmp_path)
    return "x.wav" if request.param == "relative" else str(tmp_path / "x.wav")


def rejected(
    uri: str, offset: int | None = None, n_bytes: int | None = None, max_bytes: int = MAX_BYTES
) -> str:
    with pytest.raises(Rejected) as caught:
        read_recording(uri, offset, n_bytes, max_bytes)
    return caught.value.reason


def test_a_whole_file_and_ranges(uri: str) -> None:
    assert read_recording(uri, None, None, MAX_BYTES) == DATA
    assert read_recording(uri, 100, 30, 30) == DATA[100:130]
    assert read_recording(uri, 500, 12, MAX_BYTES) == DATA[500:]
    assert read_recording(uri, 500, None, MAX_BYTES) == DATA[500:]


def test_what_is_refused(uri: str) -> None:
    assert rejected(uri.replace("x.wav", "gone.wav")) == "missing"
    assert rejected(uri, max_bytes=511) == "too_large"
    assert rejected(uri, 0, 31, max_bytes=30) == "too_large"
    assert rejected(uri, 500, 13) == "unreadable"
    assert rejected(uri, 600, None) == "unreadable"
    assert rejected(uri, 100, 0) == "empty"


def test_a_range_of_a_huge_file_is_read_and_the_whole_is_not(tmp_path: Path) -> None:
    path = tmp_path / "x.tar"
    with path.open("wb") as file:
        file.truncate(1 << 40)  # sparse
        file.seek(1 << 39)
        file.write(b"sound")
    assert read_recording(str(path), 1 << 39, 5, MAX_BYTES) == b"sound"
    assert rejected(str(path)) == "too_large"


def test_what_is_no_file_is_unreadable(tmp_path: Path) -> None:
    (tmp_path / "x.flac").mkdir()
    (tmp_path / "loop.wav").symlink_to("loop.wav")
    os.mkfifo(tmp_path / "pipe.wav")
    for name in ("x.flac", "loop.wav", "pipe.wav"):
        assert rejected(str(tmp_path / name)) == "unreadable"
    fsspec.filesystem("memory").pipe_file("/folder/x.wav", DATA)
    assert rejected("memory://folder") == "unreadable"


def test_what_cannot_be_there_is_missing(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    assert rejected(str(tmp_path / "file" / "x.wav")) == "missing"
    assert rejected(str(tmp_path / ("x" * 300))) == "missing"


def test_zero_bytes_are_empty(tmp_path: Path) -> None:
    (tmp_path / "x.wav").touch()
    assert rejected(str(tmp_path / "x.wav")) == "empty"


@pytest.mark.parametrize("number", [errno.EIO, errno.ESTALE, errno.ETIMEDOUT])
def test_a_failing_disk_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    def fail(path: Path) -> os.stat_result:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(Path, "stat", fail)
    for act in (lambda: read_recording("x.wav", None, None, 9), lambda: identity("x.wav")):
        with pytest.raises(OSError, match=os.strerror(number)):
            act()


def test_an_unknown_protocol_is_the_users() -> None:
    for act in (lambda uri: read_recording(uri, None, None, 9), identity):
        with pytest.raises(UserError, match=r"gopher://x\.wav: no file system"):
            act("gopher://x.wav")


def test_identity_changes_with_the_file(uri: str) -> None:
    first = identity(uri)
    assert identity(uri) == first
    assert identity(uri.replace("x.wav", "gone.wav")) == "missing"
    with fsspec.open(uri, "wb") as file:
        file.write(DATA[::-1])
    assert identity(uri) != first


def test_identity_of_what_cannot_be_read(tmp_path: Path) -> None:
    (tmp_path / "loop.wav").symlink_to("loop.wav")
    assert identity(str(tmp_path / "loop.wav")) == "unreadable"


@pytest.mark.parametrize(("status", "is_reject"), [(404, True), (410, True), (403, False)])
def test_a_store_that_fails_is_no_reject(
    status: int, is_reject: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    class StatusError(Exception):
        pass

    def answer(*_: object) -> None:
        cause = StatusError("from the server")
        cause.status = status  # type: ignore[attr-defined]
        raise FileNotFoundError("http://h/x.wav") from cause

    monkeypatch.setattr("flap.audio.read._filesystem", answer)
    with pytest.raises(Rejected if is_reject else FileNotFoundError):
        read_recording("http://h/x.wav", None, None, 100)


def test_credentials_that_ran_out_are_no_reject(monkeypatch: pytest.MonkeyPatch) -> None:
    def answer(*_: object) -> None:
        raise PermissionError("ExpiredToken")

    monkeypatch.setattr("flap.audio.read._filesystem", answer)
    with pytest.raises(PermissionError):
        read_recording("s3://b/x.wav", None, None, 100)


def test_colons_in_a_name_are_a_name(tmp_path: Path) -> None:
    (tmp_path / "a::b.wav").write_bytes(b"12345")
    assert read_recording(f"file://{tmp_path}/a::b.wav", 1, 3, 100) == b"234"
