"""Stage `audio`: decoding, the Kaldi front end, and a reject for whatever cannot be used."""

import errno
import hashlib
import os
from pathlib import Path

import av
import numpy as np
import pytest
import soundfile
import torch

from flap.audio.config import AudioConfig
from flap.audio.decode import Recording, Rejected, decode
from flap.audio.extract import extract, extract_shard
from flap.audio.fbank import log_mel
from flap.schemas import CLIPS, MELS, REJECTS, mel_array, provenance
from flap.shards import read_table, write_rows

CONFIG = AudioConfig(
    sample_rate_hz=16000,
    n_mels=128,
    frame_ms=25.0,
    hop_ms=10.0,
    window="hanning",
    max_seconds=12.0,
    min_seconds=0.1,
    min_peak=1e-4,
)


def tone(seconds: float, rate_hz: int, hz: float = 1000.0) -> np.ndarray:
    return (0.5 * np.sin(2 * np.pi * hz * np.arange(int(seconds * rate_hz)) / rate_hz)).astype("f4")


def write_m4a(path: Path, samples: np.ndarray, rate_hz: int) -> None:
    with av.open(str(path), "w") as container:
        stream = container.add_stream("aac", rate=rate_hz)
        frame = av.AudioFrame.from_ndarray(samples[None], format="fltp", layout="mono")
        frame.sample_rate = rate_hz
        for packet in [*stream.encode(frame), *stream.encode(None)]:
            container.mux(packet)


@pytest.mark.parametrize("name", ["x.wav", "x.flac", "x.ogg", "x.mp3", "x.m4a"])
def test_formats_decode_to_mono(tmp_path: Path, name: str) -> None:
    samples, path = tone(1.0, 44100), tmp_path / name
    if name.endswith("m4a"):
        write_m4a(path, samples, 44100)
    else:
        soundfile.write(path, np.stack([samples, samples / 2], axis=1), 44100)
    recording = decode(path.read_bytes())
    assert recording.rate_hz == 44100
    assert recording.samples.ndim == 1 and recording.samples.dtype == np.float32
    assert len(recording.samples) == pytest.approx(44100, abs=4096)  # codecs pad
    spectrum = np.abs(np.fft.rfft(recording.samples))
    assert np.argmax(spectrum) / len(recording.samples) * 44100 == pytest.approx(1000, abs=2)


def test_channels_are_averaged(tmp_path: Path) -> None:
    left = tone(0.2, 16000)
    soundfile.write(tmp_path / "x.wav", np.stack([left, -left], axis=1), 16000, subtype="FLOAT")
    recording = decode((tmp_path / "x.wav").read_bytes())
    assert recording.channels == 2
    assert np.abs(recording.samples).max() == 0


def test_ten_seconds_are_998_frames_of_kaldi_fbank() -> None:
    """Against the formula in plain numpy, float64: frames, Hann window, mel triangles, log."""
    rng = np.random.default_rng(0)
    samples = rng.normal(0, 0.1, 160000).astype("f4")
    mel_TF = log_mel(Recording(samples, 16000, 1), CONFIG)
    assert mel_TF.shape == (998, 128)
    x = samples.astype("f8") - samples.mean(dtype="f8")
    frame = x[160 * 500 : 160 * 500 + 400]
    frame = frame - frame.mean()
    frame = frame - 0.97 * np.concatenate([frame[:1], frame[:-1]])
    power = np.abs(np.fft.rfft(frame * np.hanning(400), 512)) ** 2
    edges = np.linspace(*(1127 * np.log(1 + np.array([20.0, 8000.0]) / 700)), 130)
    bins = 1127 * np.log(1 + np.arange(257) * 16000 / 512 / 700)
    up = (bins - edges[:-2, None]) / (edges[1:-1] - edges[:-2])[:, None]
    down = (edges[2:, None] - bins) / (edges[2:] - edges[1:-1])[:, None]
    weights = np.maximum(0, np.minimum(up, down))
    weights[:, 256] = 0  # Kaldi leaves the Nyquist bin out
    expected = np.log(np.maximum(weights @ power, np.finfo("f4").eps))
    np.testing.assert_allclose(mel_TF[500], expected, atol=5e-3)


def test_other_rates_are_resampled_and_long_ones_cut() -> None:
    at_16k = log_mel(Recording(tone(1.0, 16000), 16000, 1), CONFIG)
    at_48k = log_mel(Recording(tone(1.0, 48000), 48000, 1), CONFIG)
    assert at_16k.shape == at_48k.shape == (98, 128)
    assert np.abs(at_16k[10:-10].argmax(1) - at_48k[10:-10].argmax(1)).max() == 0
    assert len(log_mel(Recording(tone(20.0, 16000), 16000, 1), CONFIG)) == 1198


def test_offset_does_not_change_the_mel() -> None:
    samples = tone(1.0, 16000) + np.random.default_rng(0).normal(0, 0.01, 16000).astype("f4")
    shifted = log_mel(Recording(samples + np.float32(0.25), 16000, 1), CONFIG)
    np.testing.assert_allclose(shifted, log_mel(Recording(samples, 16000, 1), CONFIG), atol=1e-2)


def broken(folder: Path, reason: str) -> Path:
    path = folder / f"{reason}.wav"
    if reason == "unreadable":
        path.write_bytes(b"RIFF this is no sound")
    elif reason == "empty":
        path.touch()
    elif reason == "too_short":
        soundfile.write(path, tone(0.05, 16000), 16000)
    elif reason == "silent":
        soundfile.write(path, np.zeros(16000), 16000)
    elif reason == "non_finite":
        soundfile.write(path, np.full(16000, np.nan, "f4"), 16000, subtype="FLOAT")
    return path


@pytest.mark.parametrize(
    "reason", ["unreadable", "empty", "too_short", "silent", "non_finite", "missing"]
)
def test_what_cannot_be_used_is_rejected_with_its_reason(tmp_path: Path, reason: str) -> None:
    with pytest.raises(Rejected) as caught:
        extract(broken(tmp_path, reason), CONFIG)
    assert caught.value.reason == reason


def test_truncated_flac_is_unreadable(tmp_path: Path) -> None:
    path = tmp_path / "x.flac"
    soundfile.write(path, np.random.default_rng(0).normal(0, 0.1, 48000), 16000)
    path.write_bytes(path.read_bytes()[:-20000])
    with pytest.raises(Rejected) as caught:
        extract(path, CONFIG)
    assert caught.value.reason == "unreadable"


def test_header_without_samples_is_empty(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "x.wav", np.zeros(0), 16000)
    with pytest.raises(Rejected) as caught:
        extract(tmp_path / "x.wav", CONFIG)
    assert caught.value.reason == "empty"


def test_every_row_ends_in_mels_or_rejects(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "good.wav", np.stack([tone(1.0, 22050)] * 2, axis=1), 22050)
    files = [tmp_path / "good.wav", broken(tmp_path, "empty"), tmp_path / "gone.wav"]
    clips = [
        {
            "clip_id": file.stem,
            "dataset": "d",
            "split": "train",
            "uri": str(file),
            "captions": ["A tone."],
            "labels": [],
            "duration_s": None,
            "licence": "",
            "source": "",
        }
        for file in files
    ]
    write_rows(tmp_path / "clips.parquet", clips, CLIPS, {})
    target = tmp_path / "out" / "shard-00000.parquet"
    extract_shard(tmp_path / "clips.parquet", target, CONFIG)
    table = read_table(target, MELS)
    (row,) = table.to_pylist()
    assert mel_array(row["mel"], row["n_frames"]).shape == (98, 128)
    assert (row["source_rate_hz"], row["channels"]) == (22050, 2)
    assert row["sha256"] == hashlib.sha256(files[0].read_bytes()).hexdigest()
    rejects = read_table(target.parent / "_rejects" / target.name, REJECTS).to_pylist()
    assert [(r["clip_id"], r["reason"]) for r in rejects] == [
        ("empty", "empty"),
        ("gone", "missing"),
    ]
    assert provenance(table.schema)["sample_rate_hz"] == CONFIG.sample_rate_hz
    assert torch.get_num_threads() >= 1


def test_playlists_open_nothing(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "private.wav", tone(1.0, 16000), 16000)
    concat = f"ffconcat version 1.0\nfile {tmp_path / 'private.wav'}\n"
    with pytest.raises(Rejected) as caught:
        decode(concat.encode())
    assert caught.value.reason == "unreadable"


def test_flac_of_unknown_length_is_decoded(tmp_path: Path) -> None:
    """As encoders write it to a pipe: STREAMINFO with a total of 0 samples."""
    soundfile.write(tmp_path / "x.flac", tone(1.0, 16000), 16000)
    data = bytearray((tmp_path / "x.flac").read_bytes())
    data[21] &= 0xF0
    data[22:26] = bytes(4)
    assert len(decode(bytes(data)).samples) == 16000


def test_unreachable_disk_is_an_error_and_no_reject(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(path: Path) -> bytes:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(Path, "read_bytes", fail)
    with pytest.raises(OSError, match="Input/output error"):
        extract(tmp_path / "x.wav", CONFIG)
