"""Stage `audio`: every row of CLIPS ends in MELS or in REJECTS, with the right values."""

import errno
import hashlib
import os
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import soundfile
import xxhash
from audio_files import CONFIG, clip_row, encoded, mels_and_rejects, noise, tone

from flap.audio.extract import extract
from flap.audio.rejected import Rejected
from flap.core.schemas import MELS, mel_array, provenance


def test_every_row_ends_in_mels_or_rejects(tmp_path: Path) -> None:
    good, empty = tmp_path / "good.wav", tmp_path / "empty.wav"
    soundfile.write(good, np.stack([tone(1.0, 22050)] * 2, axis=1), 22050)
    empty.touch()
    uris = [str(good), str(empty), str(tmp_path / "gone.wav")]
    mels, rejects = mels_and_rejects(tmp_path, map(clip_row, uris))
    row = mels[str(good)]
    assert list(mels) == [str(good)]
    assert mel_array(row["mel"], row["n_frames"]).shape == (98, 128)
    assert (row["source_rate_hz"], row["channels"], row["duration_s"]) == (22050, 2, 1.0)
    assert row["peak"] == pytest.approx(0.5, abs=1e-3)
    assert (row["clipping"], row["silence"]) == (0, 0)
    assert row["loudness_lufs"] == pytest.approx(-9, abs=0.3)
    assert row["sha256"] == hashlib.sha256(good.read_bytes()).hexdigest()
    assert row["mel_xxh3"] == xxhash.xxh3_128_hexdigest(row["mel"])
    reasons = {clip_id: reject["reason"] for clip_id, reject in rejects.items()}
    assert reasons == {uris[1]: "empty", uris[2]: "missing"}


def test_equal_samples_have_equal_mels_in_any_container(tmp_path: Path) -> None:
    samples = np.round(noise(1.0, 44100) * 2**15).astype("i2")  # writers round floats differently
    for kind in ("wav", "flac", "aiff"):
        (tmp_path / kind).write_bytes(encoded(kind, samples, 44100))
    mels, _ = mels_and_rejects(
        tmp_path, [clip_row(str(tmp_path / kind)) for kind in ("wav", "flac", "aiff")]
    )
    assert len(mels) == 3
    assert len({row["mel_xxh3"] for row in mels.values()}) == 1
    assert len({row["sha256"] for row in mels.values()}) == 3


def test_a_shard_holds_its_front_end_and_has_row_groups(tmp_path: Path) -> None:
    """Several row groups mean that memory never holds the whole shard."""
    path = tmp_path / "x.wav"
    path.write_bytes(encoded("wav", tone(0.2, 16000), 16000))
    n_clips = MELS.row_group_rows + 1
    rows = [clip_row(str(path)) | {"clip_id": str(i)} for i in range(n_clips)]
    mels, _ = mels_and_rejects(tmp_path, rows)
    assert list(mels) == [str(i) for i in range(n_clips)]
    file = pq.ParquetFile(tmp_path / "out" / "shard-00000.parquet")
    assert file.metadata.num_row_groups == 2
    front_end = provenance(file.schema_arrow)
    assert front_end["sample_rate_hz"] == CONFIG.sample_rate_hz
    assert front_end["resampler"] == "soxr HQ"


def test_a_member_of_a_tar_is_read_by_its_byte_range(tmp_path: Path) -> None:
    members = [encoded("flac", tone(0.5, 16000, hz), 16000) for hz in (500, 2000)]
    path = tmp_path / "x.tar"
    path.write_bytes(b"header" + b"".join(members))
    places = [(6, len(members[0])), (6 + len(members[0]), len(members[1]))]
    rows = [clip_row(str(path), *place) | {"clip_id": str(place)} for place in places]
    mels, _ = mels_and_rejects(tmp_path, rows)
    for place, data in zip(places, members, strict=True):
        assert mels[str(place)]["sha256"] == hashlib.sha256(data).hexdigest()


def test_a_long_recording_is_cut_and_keeps_its_duration(tmp_path: Path) -> None:
    path = tmp_path / "long.flac"
    path.write_bytes(encoded("flac", tone(20.0, 16000), 16000))
    row = extract(str(path), None, None, CONFIG)
    assert (row["n_frames"], row["duration_s"]) == (1198, 20.0)


def test_samples_with_infinite_power_are_rejected(tmp_path: Path) -> None:
    path = tmp_path / "huge.wav"
    path.write_bytes(encoded("float", tone(1.0, 16000) * 1e30, 16000))
    with pytest.raises(Rejected, match="non_finite"):
        extract(str(path), None, None, CONFIG)


def test_a_failing_disk_is_an_error_and_no_reject(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(path: Path) -> os.stat_result:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(Path, "stat", fail)
    with pytest.raises(OSError, match="Input/output error"):
        extract(str(tmp_path / "x.wav"), None, None, CONFIG)
