"""Decoding: complete files decode, truncated files are rejected, and memory is bounded."""

import tracemalloc

import numpy as np
import pytest
import soundfile
from audio_files import FORMATS, encoded, noise, tone, video

from flap.audio import decode as decoding
from flap.audio.decode import decode
from flap.audio.rejected import Rejected

RATES = {"opus": 48000, "webm": 48000}


def reason(data: bytes, max_seconds: float = 12.0) -> str:
    with pytest.raises(Rejected) as caught:
        decode(data, max_seconds)
    return caught.value.reason


@pytest.mark.parametrize("kind", FORMATS)
def test_formats_decode_to_mono(kind: str) -> None:
    rate_hz = RATES.get(kind, 44100)
    samples = tone(1.0, rate_hz)
    recording = decode(encoded(kind, np.stack([samples, samples / 2], axis=1), rate_hz), 12.0)
    assert (recording.rate_hz, recording.channels) == (rate_hz, 2)
    assert recording.samples.ndim == 1 and recording.samples.dtype == np.float32
    assert len(recording.samples) == pytest.approx(rate_hz, abs=4096)  # codecs pad
    assert recording.duration_s == len(recording.samples) / rate_hz
    spectrum = np.abs(np.fft.rfft(recording.samples))
    assert np.argmax(spectrum) / recording.duration_s == pytest.approx(1000, abs=2)


@pytest.mark.parametrize("share", [0.05, 0.4, 0.9])
@pytest.mark.parametrize("kind", FORMATS)
def test_truncated_files_are_unreadable(kind: str, share: float) -> None:
    whole = encoded(kind, noise(3.0, RATES.get(kind, 44100)), RATES.get(kind, 44100))
    assert reason(whole[: int(len(whole) * share)]) == "unreadable"


@pytest.mark.parametrize("kind", FORMATS)
def test_a_recording_longer_than_max_seconds_is_cut(kind: str) -> None:
    rate_hz = RATES.get(kind, 44100)
    whole = encoded(kind, noise(3.0, rate_hz), rate_hz)
    recording = decode(whole, max_seconds=1.0)
    assert len(recording.samples) == rate_hz
    assert recording.duration_s == pytest.approx(3.0, abs=0.1)
    np.testing.assert_array_equal(recording.samples, decode(whole, 12.0).samples[:rate_hz])


@pytest.mark.parametrize("kind", ["wav", "aiff", "m4a", "webm", "ogg", "mp3"])
def test_a_file_truncated_after_max_seconds_is_unreadable(kind: str) -> None:
    whole = encoded(kind, noise(3.0, 48000), 48000)
    assert reason(whole[: len(whole) * 3 // 4], max_seconds=1.0) == "unreadable"


def test_clipping_is_measured_before_channels_are_averaged() -> None:
    left = np.clip(4 * tone(0.2, 16000), -1, 1)
    recording = decode(encoded("float", np.stack([left, -left], axis=1), 16000), 12.0)
    assert recording.channels == 2
    assert np.abs(recording.samples).max() == 0
    assert recording.clipping == pytest.approx(np.mean(np.abs(left) >= 0.9999))
    assert recording.clipping > 0.5


@pytest.mark.parametrize(("rate_hz", "channels"), [(96000, 8), (192000, 3), (8000, 64), (11025, 1)])
def test_odd_rates_and_many_channels(rate_hz: int, channels: int) -> None:
    frames_TC = noise(1.0, rate_hz, channels)
    recording = decode(encoded("float", frames_TC, rate_hz), 12.0)
    assert (recording.rate_hz, recording.channels) == (rate_hz, channels)
    np.testing.assert_allclose(recording.samples, frames_TC.mean(1), atol=1e-6)


def test_memory_does_not_grow_with_the_number_of_channels(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decoding, "_BLOCK_SAMPLES", 1 << 16)
    data = encoded("wav", noise(20.0, 8000, 64), 8000)
    tracemalloc.start()
    decode(data, 10.0)
    _, peak_bytes = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak_bytes < 5 * 10 * 8000 * 4  # the 64 channels of 20 s are 41 MB


def test_the_sound_of_a_video_is_decoded() -> None:
    recording = decode(video(noise(1.0, 44100), 44100), 12.0)
    assert recording.duration_s == pytest.approx(1.0, abs=0.1)
    assert reason(video(None, 44100)) == "unreadable"


def test_header_without_samples_is_empty() -> None:
    assert reason(encoded("wav", np.zeros(0), 16000)) == "empty"


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_one_bad_sample_in_one_channel_is_non_finite(value: float) -> None:
    frames_TC = noise(0.5, 16000, 2)
    frames_TC[100, 1] = value
    assert reason(encoded("float", frames_TC, 16000)) == "non_finite"


def test_flac_of_unknown_length_is_decoded() -> None:
    """An encoder that writes to a pipe stores a total of 0 samples in STREAMINFO."""
    data = bytearray(encoded("flac", tone(1.0, 16000), 16000))
    data[21] &= 0xF0
    data[22:26] = bytes(4)
    recording = decode(bytes(data), 12.0)
    assert len(recording.samples) == 16000 and recording.duration_s == 1.0


@pytest.mark.parametrize("size", [b"\0\0\0\0", b"\xff\xff\xff\xff"])
def test_wav_of_unknown_length_is_decoded(size: bytes) -> None:
    data = bytearray(encoded("wav", tone(1.0, 16000), 16000))
    data[4:8] = size
    assert len(decode(bytes(data), 12.0).samples) == 16000


def test_truncation_is_found_in_an_mp3_with_an_id3_tag() -> None:
    tag = b"ID3\x03\0\0\0\0\x08\0" + bytes(1024)
    data = tag + encoded("lame", noise(3.0, 44100), 44100)
    assert len(decode(data, 12.0).samples) == pytest.approx(3 * 44100, abs=4096)
    assert reason(data[: len(data) * 3 // 4]) == "unreadable"


def test_a_playlist_cannot_open_other_files(tmp_path) -> None:
    soundfile.write(tmp_path / "private.wav", tone(1.0, 16000), 16000)
    concat = f"ffconcat version 1.0\nfile {tmp_path / 'private.wav'}\n"
    assert reason(concat.encode()) == "unreadable"


def test_the_detail_of_an_unreadable_file_is_the_same_each_time() -> None:
    """Equal shards need equal bytes, so the detail must not contain a memory address."""
    messages = set()
    for _ in range(2):
        with pytest.raises(Rejected) as caught:
            decode(b"RIFF this is no sound" * 5, 12.0)
        messages.add(caught.value.detail)
    assert len(messages) == 1 and "0x" not in messages.pop()


@pytest.mark.parametrize("id3", [b"", b"ID3\x04\0\0\0\0\x02\0" + bytes(256)])
@pytest.mark.parametrize("seconds", [0.4, 3.0])
def test_mp3_without_a_frame_count_is_decoded_completely(seconds: float, id3: bytes) -> None:
    data = encoded("bare mp3", noise(seconds, 44100), 44100)
    recording = decode(id3 + data, 12.0)
    assert recording.duration_s == pytest.approx(seconds, abs=0.1)


@pytest.mark.parametrize("kind", ["ogg", "opus"])
def test_chained_ogg_streams_are_decoded(kind: str) -> None:
    data = encoded(kind, tone(1.0, 48000), 48000) * 3
    assert decode(data, 12.0).duration_s == pytest.approx(3.0, abs=0.1)
    assert reason(data[:-1000]) == "unreadable"


@pytest.mark.parametrize("kind", ["mkv", "webm"])
def test_sound_with_a_late_start_is_not_truncated(kind: str) -> None:
    data = encoded(kind, noise(2.0, 48000), 48000, start_s=3.0)
    assert decode(data, 12.0).duration_s == pytest.approx(2.0, abs=0.1)


@pytest.mark.parametrize("kind", ["m4a", "caf"])
def test_a_tag_after_the_last_box_is_ignored(kind: str) -> None:
    data = encoded(kind, noise(1.0, 44100), 44100) + b"TAG" + b"title".ljust(125)
    assert decode(data, 12.0).duration_s == pytest.approx(1.0, abs=0.1)


def test_a_short_file_may_lack_only_few_bytes() -> None:
    data = encoded("wav", noise(0.12, 16000), 16000)
    assert reason(data[:-900]) == "unreadable"
    size = (len(data) - 8 - 1920).to_bytes(4, "little")
    assert reason(data[:4] + size + data[8:-1920]) == "unreadable"  # its data chunk is incomplete


@pytest.mark.parametrize("rate_hz", [1, 999, 1_000_001, 1_000_000_000])
def test_implausible_rates_are_unreadable(rate_hz: int) -> None:
    data = bytearray(encoded("wav", noise(1.0, 16000), 16000))
    data[24:28] = rate_hz.to_bytes(4, "little")
    with pytest.raises(Rejected, match=f"a sample rate of {rate_hz} Hz"):
        decode(bytes(data), 12.0)


def test_a_memory_error_is_no_reject(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise MemoryError

    monkeypatch.setattr(decoding, "MonoBlocks", fail)
    with pytest.raises(MemoryError):
        decode(encoded("wav", noise(1.0, 16000), 16000), 12.0)
