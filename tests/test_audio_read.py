"""Bytes of recordings: files, ranges, URLs, and which faults are rejects or errors."""

import errno
import os
from datetime import UTC, datetime
from pathlib import Path

import fsspec
import pytest

from flap.audio.read import read_recording, recording_version
from flap.audio.rejected import Rejected
from flap.core.errors import UserError
from flap.core.remote import file_version

MAX_BYTES = 1000
DATA = bytes(range(256)) * 2


@pytest.fixture(params=["path", "relative", "memory"])
def uri(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """`DATA` as a file x.wav, by an absolute path, a relative path and a URL."""
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


def test_missing_too_large_and_empty_ranges_are_rejected(uri: str) -> None:
    assert rejected(uri.replace("x.wav", "gone.wav")) == "missing"
    assert rejected(uri, max_bytes=511) == "too_large"
    assert rejected(uri, 0, 31, max_bytes=30) == "too_large"
    assert rejected(uri, 500, 13) == "unreadable"
    assert rejected(uri, 600, None) == "unreadable"
    assert rejected(uri, 100, 0) == "empty"


def test_a_range_of_a_huge_file_is_read_but_the_whole_file_is_rejected(tmp_path: Path) -> None:
    path = tmp_path / "x.tar"
    with path.open("wb") as file:
        file.truncate(1 << 40)  # sparse
        file.seek(1 << 39)
        file.write(b"sound")
    assert read_recording(str(path), 1 << 39, 5, MAX_BYTES) == b"sound"
    assert rejected(str(path)) == "too_large"


def test_folders_link_loops_and_pipes_are_unreadable(tmp_path: Path) -> None:
    (tmp_path / "x.flac").mkdir()
    (tmp_path / "loop.wav").symlink_to("loop.wav")
    os.mkfifo(tmp_path / "pipe.wav")
    for name in ("x.flac", "loop.wav", "pipe.wav"):
        assert rejected(str(tmp_path / name)) == "unreadable"
    fsspec.filesystem("memory").pipe_file("/folder/x.wav", DATA)
    assert rejected("memory://folder") == "unreadable"


def test_impossible_paths_are_missing(tmp_path: Path) -> None:
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
    for act in (lambda: read_recording("x.wav", None, None, 9), lambda: recording_version("x.wav")):
        with pytest.raises(OSError, match=os.strerror(number)):
            act()


def test_an_unknown_protocol_is_a_user_error() -> None:
    for act in (lambda uri: read_recording(uri, None, None, 9), recording_version):
        with pytest.raises(UserError, match=r"gopher://x\.wav: no installed file system"):
            act("gopher://x.wav")


def test_the_version_changes_with_the_file(uri: str) -> None:
    first = recording_version(uri)
    assert recording_version(uri) == first
    assert recording_version(uri.replace("x.wav", "gone.wav")) == "missing"
    with fsspec.open(uri, "wb") as file:
        file.write(DATA[::-1])
    assert recording_version(uri) != first


def test_the_version_of_an_unreadable_file_is_its_reason(tmp_path: Path) -> None:
    (tmp_path / "loop.wav").symlink_to("loop.wav")
    assert recording_version(str(tmp_path / "loop.wav")) == "unreadable"


@pytest.mark.parametrize(
    ("info", "version"),
    [
        ({"size": 7, "ETag": '"ab"', "LastModified": datetime(2020, 1, 1, tzinfo=UTC)}, "7:ab"),
        ({"size": 7, "created": datetime(2020, 1, 1, tzinfo=UTC)}, "7:1577836800.0"),
        ({"size": 7, "mtime": 1577836800.0}, "7:1577836800.0"),
        ({"size": 7, "blob_id": "ab", "etag": None}, "7:ab"),
        ({"size": None}, "None:"),
    ],
)
def test_the_version_of_a_remote_file(info: dict[str, object], version: str) -> None:
    assert file_version(fsspec.filesystem("memory"), info) == version


def test_a_local_file_has_one_version_by_path_and_by_url(tmp_path: Path) -> None:
    path = tmp_path / "x.wav"
    path.write_bytes(DATA)
    assert recording_version(f"file://{path}") == recording_version(str(path))


@pytest.mark.parametrize(("status", "is_reject"), [(404, True), (410, True), (403, False)])
def test_a_failing_server_is_an_error_and_a_missing_file_a_reject(
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


def test_expired_credentials_are_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def answer(*_: object) -> None:
        raise PermissionError("ExpiredToken")

    monkeypatch.setattr("flap.audio.read._filesystem", answer)
    with pytest.raises(PermissionError):
        read_recording("s3://b/x.wav", None, None, 100)


def test_a_name_may_contain_two_colons(tmp_path: Path) -> None:
    (tmp_path / "a::b.wav").write_bytes(b"12345")
    assert read_recording(f"file://{tmp_path}/a::b.wav", 1, 3, 100) == b"234"
