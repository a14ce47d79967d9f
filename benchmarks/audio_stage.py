"""Recordings → MELS shards, by stage `audio` and by the usual libraries.

    python -m benchmarks.audio_stage [--shards 4] [--seconds 30]

The clips last 10 s. Their formats, rates and channels are mixed about as in the demo corpus,
without m4a, which soundfile does not read. The peer uses soundfile, torchaudio's resampling and
torchaudio's fbank, and writes the same Parquet: either log-mels alone, or every column of MELS,
computed by pyloudnorm, librosa, numpy, hashlib and xxhash. The stage always fills every column
and also looks for truncated recordings. Keys of `ratios` and expected values:

    speedup       time of the peer for log-mels alone / time of the stage: at least 1.35
    same_columns  time of the peer for every column / time of the stage
    two_process   time of the stage in one process / in two running processes: at least 1.8
"""

import hashlib
import os
import tempfile
from collections.abc import Callable
from functools import partial
from itertools import cycle
from pathlib import Path
from typing import Annotated

import librosa
import numpy as np
import pyloudnorm
import soundfile
import torch
import typer
import xxhash
from torchaudio.functional import resample

from benchmarks.fbank import kaldi_fbank
from benchmarks.interleaved import interleaved, ratio, report
from flap.audio.config import AudioConfig
from flap.audio.extract import extract_shard
from flap.core.config import load_section
from flap.core.schemas import CLIPS, MELS, mel_bytes
from flap.core.shards import Row, count_rows, open_rows, read_table, shard_name, write_rows
from flap.core.work import Work, run_shards

# Formats of 40 clips, in the shares of the demo corpus.
FORMATS = 2 * (
    *[("flac", "PCM_16")] * 6,
    *[("wav", "PCM_16")] * 5,
    *[("wav", "PCM_24")] * 2,
    *[("wav", "FLOAT")] * 2,
    *[("ogg", "VORBIS")] * 3,
    *[("mp3", "MPEG_LAYER_III")] * 2,
)
RATES_HZ, CHANNELS = (16000, 22050, 32000, 44100, 48000), (1, 2, 1, 1, 2, 1)
_NOISE = 0.003  # with this noise FLAC needs about as many bits per sample as for the demo corpus


def main(
    shards: Annotated[int, typer.Option(help="shards of 40 clips of 10 s")] = 4,
    seconds: Annotated[float, typer.Option(help="time to measure for, after warming up")] = 30,
) -> None:
    """Time the stage in one and in two processes, and the peer."""
    torch.set_num_threads(1)
    config = load_section(Path("params.yaml"), "audio", AudioConfig)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        clips = [_write_shard(folder, shard) for shard in range(shards)]
        taken = interleaved(
            {
                "ours": lambda: extract_shard(clips[0], folder / "ours" / clips[0].name, config),
                "theirs": lambda: _peer_shard(clips[0], folder / "theirs", config, _measured),
                "mels_alone": lambda: _peer_shard(clips[0], folder / "alone", config, _unmeasured),
                "one_process": lambda: _run(clips, folder, config, jobs=1),
                "two_processes": lambda: _run(clips, folder, config, jobs=2),
            },
            seconds,
        )
        assert count_rows(folder / "ours") == count_rows(folder / "theirs") == len(FORMATS)
    ratios = {
        "speedup": ratio(taken, "mels_alone", "ours"),
        "same_columns": ratio(taken, "theirs", "ours"),
        "two_process": ratio(taken, "one_process", "two_processes"),
    }
    n_clips = {name: len(FORMATS) * (shards if "process" in name else 1) for name in taken}
    ms = {name: round(min(taken[name]) / n_clips[name] * 1000, 2) for name in taken}
    report("audio_stage", ratios, ms_a_clip=ms, rounds=len(taken["ours"]), cores=os.cpu_count())


def _write_shard(folder: Path, shard: int) -> Path:
    """Write a CLIPS shard and its recordings: tones of varying level, with noise."""
    rng, rows = np.random.default_rng(shard), []
    mixed = zip(FORMATS, cycle(RATES_HZ), cycle(CHANNELS), strict=False)
    for i, ((suffix, subtype), rate_hz, channels) in enumerate(mixed):
        time_T1 = np.arange(10 * rate_hz)[:, None] / rate_hz
        tone_T1 = np.sin(2 * np.pi * rng.uniform(200, 4000) * time_T1) * np.sin(3 * time_T1)
        noise_TC = rng.normal(0, _NOISE, (len(time_T1), channels))
        path = folder / f"{shard}-{i}.{suffix}"
        soundfile.write(path, 0.3 * tone_T1 + noise_TC, rate_hz, subtype=subtype)
        rows.append(_clip_row(path))
    clips = folder / "clips" / shard_name(shard)
    write_rows(clips, rows, CLIPS, {})
    return clips


def _clip_row(path: Path) -> Row:
    empty = dict.fromkeys(CLIPS.schema({}).names, "")
    nothing = {"captions": [], "labels": [], "offset": None, "n_bytes": None, "duration_s": None}
    return empty | nothing | {"clip_id": path.name, "uri": str(path)}


def _run(clips: list[Path], folder: Path, config: AudioConfig, jobs: int) -> None:
    """Run the stage like `pipeline.audio`, but do not publish or keep the result."""
    os.environ["FLAP_JOBS"] = str(jobs)
    with tempfile.TemporaryDirectory(dir=folder) as data:
        work = Work.open(Path(data) / "audio" / "noise", "benchmark")
        run_shards(partial(extract_shard, config=config), clips, work, "extract")


Measure = Callable[[str, np.ndarray, np.ndarray, bytes, AudioConfig], Row]


def _peer_shard(clips: Path, folder: Path, config: AudioConfig, measure: Measure) -> None:
    with open_rows(folder / clips.name, MELS, {}) as writer:
        for uri in read_table(clips, CLIPS, ["uri"])["uri"].to_pylist():
            frames_TC, rate_hz = soundfile.read(uri, dtype="float32", always_2d=True)
            samples = torch.from_numpy(frames_TC).mean(1)
            if rate_hz != config.sample_rate_hz:
                samples = resample(samples, rate_hz, config.sample_rate_hz)
            mel = mel_bytes(kaldi_fbank(samples.numpy(), config))
            known = {
                "clip_id": Path(uri).name,
                "n_frames": len(mel) // 2 // config.n_mels,
                "mel": mel,
                "duration_s": len(frames_TC) / rate_hz,
                "source_rate_hz": rate_hz,
                "channels": frames_TC.shape[1],
            }
            writer.append(known | measure(uri, frames_TC, samples.numpy(), mel, config))


def _unmeasured(*_: object) -> Row:
    levels = dict.fromkeys(("peak", "loudness_lufs", "silence", "clipping"), 0.0)
    return levels | {"sha256": "", "mel_xxh3": ""}


def _measured(
    uri: str, frames_TC: np.ndarray, samples: np.ndarray, mel: bytes, config: AudioConfig
) -> Row:
    hop = config.hop_samples
    rms = librosa.feature.rms(y=samples, frame_length=hop, hop_length=hop, center=False)
    return {
        "peak": float(np.abs(samples).max()),
        "loudness_lufs": pyloudnorm.Meter(config.sample_rate_hz).integrated_loudness(samples),
        "silence": float((rms < 10 ** (-60 / 20)).mean()),
        "clipping": float((np.abs(frames_TC) >= 0.9999).any(axis=1).mean()),
        "sha256": hashlib.sha256(Path(uri).read_bytes()).hexdigest(),
        "mel_xxh3": xxhash.xxh3_128_hexdigest(mel),
    }


if __name__ == "__main__":
    typer.run(main)
