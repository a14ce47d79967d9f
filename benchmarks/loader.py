"""Throughput of the training loader against the consumption of ViT-B on this machine.

    python -m benchmarks.loader [--clips 512] [--batch 2] [--steps 4] [--seconds 15]

The loader reads MELS of 10 s in the order of training in one process, crops and collates them. A
run of the training loop trains ViT-B/16 with the 2-D mask 0.2/0.2 and a text encoder of the same
width. Keys of `ratios` and expected values:

    vs_consumption  clips per second of the loader over those of training: at least 10
    data_wait       share of the training time that steps wait for data: below 0.02
"""

import os
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Annotated

import numpy as np
import pandas as pd
import torch
import typer

from benchmarks.interleaved import report
from benchmarks.train_step import CAPTION, MASKED, build_model, encoder_config, text_config
from flap.core.config import load_section
from flap.core.schemas import MELS, mel_bytes
from flap.core.shards import write_rows
from flap.model.text_encoder import build_tokenizer
from flap.pretrain.config import PretrainConfig
from flap.pretrain.loop import HISTORY, Trainer
from flap.training.batches import WindowSampler, read_batches
from flap.training.distributed import World
from flap.training.order import MicroBatches, PairOrder

FRAMES, BINS, SHARD = 998, 128, 64


def main(
    clips: Annotated[int, typer.Option(help="clips of 10 s")] = 512,
    batch: Annotated[int, typer.Option(help="pairs of a batch")] = 2,
    steps: Annotated[int, typer.Option(help="steps of the run")] = 4,
    width: Annotated[int, typer.Option(help="width of both encoders; ViT-B has 768")] = 768,
    depth: Annotated[int, typer.Option(help="blocks; ViT-B has 12")] = 12,
    seconds: Annotated[float, typer.Option(help="time to read for")] = 15,
) -> None:
    """Time the loader and a run of the training loop."""
    torch.manual_seed(0)
    with tempfile.TemporaryDirectory() as name:
        table = write_noise(Path(name), clips)
        loaded = _clips_per_second(table, seconds)
        history = _train(Path(name), table, batch, steps, width, depth)
    steady = history.iloc[1:]  # without the warm-up step
    ratios = {
        "vs_consumption": loaded / median(steady["pairs_per_second"]),
        "data_wait": median(steady["data_wait"]),
    }
    report(
        "loader",
        ratios,
        clips_per_second=round(loaded),
        trained_per_second=round(median(steady["pairs_per_second"]), 3),
        batch=batch,
        cores=os.cpu_count(),
    )


def _clips_per_second(table: pd.DataFrame, seconds: float) -> float:
    """Clips per second in batches of 64, after a first batch that opens the files."""
    shards = pd.factorize(table["path"])[0]
    order = PairOrder(shards, np.ones(len(table), int), seed=0, window=4, batch=SHARD, streams=4)
    sampler = WindowSampler(1024, False, _config(SHARD).spec_augment, seed=0)
    batches = iter(read_batches(table, MicroBatches(order, range(2**40)), sampler, workers=0))
    next(batches)
    start, read = time.perf_counter(), 0
    while not read or time.perf_counter() < start + seconds:
        read += len(next(batches).pairs)
    return read / (time.perf_counter() - start)


def _train(
    folder: Path, table: pd.DataFrame, batch: int, steps: int, width: int, depth: int
) -> pd.DataFrame:
    """Train for `steps` steps; returns the history."""
    clips = table.head(batch * steps)
    text = text_config(width, depth)
    tokenizer = build_tokenizer(text, [CAPTION])
    model = build_model(encoder_config(width, depth), text)
    alone = World(0, 1, torch.device("cpu"))
    trainer = Trainer(_config(batch), model, tokenizer, clips, clips.head(batch), alone)
    trainer.run(folder)
    return pd.read_csv(folder / HISTORY)


def _config(batch: int) -> PretrainConfig:
    section = load_section(Path("params.yaml"), "pretrain", PretrainConfig).model_dump()
    section |= {"mask": MASKED, "batch": batch, "epochs": 1, "streams": 1}
    return PretrainConfig.model_validate(section)


def write_noise(folder: Path, clips: int) -> pd.DataFrame:
    """Write MELS of noise; returns the table of training clips."""
    rng = np.random.default_rng(0)
    mel = mel_bytes(rng.normal(-5, 4, (FRAMES, BINS)))
    levels = {"loudness_lufs": None, "silence": 0.0, "clipping": 0.0, "peak": 0.5}
    source = {"duration_s": 10.0, "source_rate_hz": 16000, "channels": 1}
    rows = []
    for start in range(0, clips, SHARD):
        path = folder / "mels" / f"shard-{start // SHARD:05d}.parquet"
        shard = [
            {"clip_id": f"noise/{clip}", "n_frames": FRAMES, "mel": mel, "sha256": f"{clip}"}
            | {"mel_xxh3": f"{clip}"}
            | levels
            | source
            for clip in range(start, min(start + SHARD, clips))
        ]
        write_rows(path, shard, MELS, {"n_mels": BINS})
        rows += [
            {"clip_id": row["clip_id"], "captions": [f"{CAPTION} {i}"], "path": str(path), "row": i}
            for i, row in enumerate(shard)
        ]
    return pd.DataFrame(rows)


if __name__ == "__main__":
    typer.run(main)
