"""Reading log-mels for training, against on-the-fly decoding and against a memory map.

    python -m benchmarks.mel_read [--clips 256] [--seconds 30]

Clips of 10 s are read as float32 arrays by one thread, in training order: shuffled row groups, and
shuffled clips within them. Keys of `ratios`, in clips per second relative to the other method,
and expected values:

    vs_on_the_fly  MELS against soundfile, torchaudio's resampling and its fbank: at least 60
    vs_memmap      MELS against `np.memmap` of one array with all clips: at least 0.8

`layouts` compares other layouts of the column with `np.memmap`: as the audio stage writes it and
MelReader reads it (ours); read by pyarrow, uncompressed (none), snappy, zstd; nested lists (lists).
"""

import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import soundfile
import torch
import typer
from torchaudio.functional import resample

from benchmarks.fbank import kaldi_fbank
from benchmarks.interleaved import interleaved, ratio, report
from flap.audio.config import AudioConfig
from flap.core.config import load_section
from flap.core.schemas import MELS, mel_bytes
from flap.core.shards import open_rows
from flap.mels.reader import MelReader

CODECS = ("none", "snappy", "zstd")


def main(
    clips: Annotated[int, typer.Option(help="clips of 10 s")] = 256,
    seconds: Annotated[float, typer.Option(help="measuring time, after warming up")] = 30,
) -> None:
    """Time reading MELS, decoding recordings and reading a memory map."""
    torch.set_num_threads(1)
    warnings.filterwarnings("ignore", "The given NumPy array is not writable")
    config = load_section(Path("params.yaml"), "audio", AudioConfig)
    rng = np.random.default_rng(0)
    mels_CTF = rng.normal(-5, 4, (clips, 998, 128)).astype("<f2")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        layouts = _write_layouts(folder, mels_CTF)
        recordings = _write_recordings(folder, rng)
        _check_same(folder / "ours.parquet", folder / "mels.npy", clips)
        order = _training_order(clips, rng)
        taken = interleaved(
            {
                "memmap": lambda: _read_memmap(folder / "mels.npy", order),
                "on_the_fly": lambda: [_decode(path, config) for path in recordings],
            }
            | {layout: _reading(path, order) for layout, path in layouts.items()},
            seconds,
        )
    per_clip = clips / len(recordings)
    against = {layout: ratio(taken, "memmap", layout) for layout in layouts}
    ratios = {
        "vs_on_the_fly": ratio(taken, "on_the_fly", "ours") * per_clip,
        "vs_memmap": against["ours"],
    }
    fastest = min(taken["ours"])
    report(
        "mel_read",
        ratios,
        layouts={layout: round(value, 3) for layout, value in against.items()},
        clips_per_second=round(clips / fastest),
        rounds=len(taken["ours"]),
    )


def _write_layouts(folder: Path, mels_CTF: np.ndarray) -> dict[str, Path]:
    """The same clips in all layouts: {name: path}."""
    np.save(folder / "mels.npy", mels_CTF)
    paths = {name: folder / f"{name}.parquet" for name in ("ours", *CODECS, "lists")}
    with open_rows(paths["ours"], MELS, {"n_mels": 128}) as rows:
        for i, mel_TF in enumerate(mels_CTF):
            rows.append(_row(i, mel_TF))
    table = pq.read_table(paths["ours"], columns=["n_frames", "mel"])
    options = {"row_group_size": MELS.row_group_rows, "use_dictionary": False}
    for codec in CODECS:
        pq.write_table(table, paths[codec], compression=codec, **options)
    flat = list(mels_CTF.reshape(len(mels_CTF), -1))
    nested = table.set_column(1, "mel", pa.array(flat, pa.list_(pa.float16())))
    pq.write_table(nested, paths["lists"], compression="none", **options)
    return paths


def _row(number: int, mel_TF: np.ndarray) -> dict[str, object]:
    texts = dict.fromkeys(("clip_id", "sha256", "mel_xxh3"), str(number))
    numbers = {"duration_s": 10.0, "source_rate_hz": 16000, "channels": 1, "peak": 0.5}
    levels = {"loudness_lufs": None, "silence": 0.0, "clipping": 0.0}
    return {"n_frames": len(mel_TF), "mel": mel_bytes(mel_TF)} | texts | numbers | levels


def _write_recordings(folder: Path, rng: np.random.Generator) -> list[Path]:
    """Stereo files in several formats, as in most corpora."""
    formats = [("a.wav", 44100), ("b.flac", 44100), ("c.ogg", 48000), ("d.mp3", 44100)]
    for name, rate_hz in formats:
        soundfile.write(folder / name, rng.normal(0, 0.1, (10 * rate_hz, 2)), rate_hz)
    return [folder / name for name, _ in formats]


def _training_order(clips: int, rng: np.random.Generator) -> list[int]:
    rows = MELS.row_group_rows
    starts = rng.permutation(np.arange(0, clips, rows))
    groups = (np.arange(start, min(start + rows, clips)) for start in starts)
    return [int(clip) for group in groups for clip in rng.permutation(group)]


def _reading(path: Path, order: list[int]) -> Callable[[], None]:
    read = _read_ours if path.stem == "ours" else _read_row_groups
    return lambda: read(path, order)


def _read_ours(path: Path, order: list[int]) -> None:
    reader = MelReader()
    for row in order:
        _use(reader.read(str(path), row))


def _read_row_groups(path: Path, order: list[int]) -> None:
    """Read whole row groups with pyarrow, the usual way to read Parquet."""
    rows = MELS.row_group_rows
    with pq.ParquetFile(path, memory_map=True) as file:
        for start in range(0, len(order), rows):
            mels = file.read_row_group(order[start] // rows, use_threads=False)["mel"]
            for mel in mels:
                flat = mel.values.to_numpy() if isinstance(mel, pa.ListScalar) else mel.as_buffer()
                _use(np.frombuffer(flat, "<f2").reshape(998, 128))


def _read_memmap(path: Path, order: list[int]) -> None:
    mels_CTF = np.load(path, mmap_mode="c")
    for clip in order:
        _use(mels_CTF[clip])


def _use(mel_TF: np.ndarray) -> torch.Tensor:
    """All values as float32, as a training step needs them."""
    return torch.from_numpy(mel_TF).float()


def _decode(path: Path, config: AudioConfig) -> np.ndarray:
    samples_TC, rate_hz = soundfile.read(path, dtype="float32", always_2d=True)
    samples_T = resample(torch.from_numpy(samples_TC.mean(1)), rate_hz, config.sample_rate_hz)
    return kaldi_fbank(samples_T.numpy(), config)


def _check_same(parquet: Path, memmap: Path, clips: int) -> None:
    reader, mels_CTF = MelReader(), np.load(memmap, mmap_mode="r")
    for clip in range(clips):
        assert np.array_equal(reader.read(str(parquet), clip), mels_CTF[clip])


if __name__ == "__main__":
    typer.run(main)
