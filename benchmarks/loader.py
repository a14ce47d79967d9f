"""The loader of training beside what ViT-B consumes on this machine.

    python -m benchmarks.loader [--clips 512] [--batch 2] [--steps 4] [--seconds 15]

MELS of 10 s, read in training's order in one process, cropped, collated; and a real run of the
training loop, ViT-B/16 under the mask 2-D 0.2/0.2 with a text tower of its width. Keys of
`ratios`, with what is expected of them:

    vs_consumption  clips a second of the loader over those of the run's steps: at least 10
    data_wait       share of the run's time that steps wait for data, no ratio: below 0.02
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
from benchmarks.train_step import CAPTION, MASKED, encoder_of, flap_of, text_of
from flap.core.config import load_section
from flap.core.schemas import MELS, mel_bytes
from flap.core.shards import write_rows
from flap.model.text_encoder import build_tokenizer
from flap.pretrain.config import PretrainConfig
from flap.pretrain.loop import HISTORY, Trainer
from flap.training.batches import WindowDraw, read_batches
from flap.training.distributed import Ranks
from flap.training.order import MicroBatches, PairOrder

FRAMES, BINS, SHARD = 998, 128, 64


def main(
    clips: Annotated[int, typer.Option(help="clips of 10 s")] = 512,
    batch: Annotated[int, typer.Option(help="pairs of a step")] = 2,
    steps: Annotated[int, typer.Option(help="steps of the run")] = 4,
    width: Annotated[int, typer.Option(help="of both towers; ViT-B has 768")] = 768,
    depth: Annotated[int, typer.Option(help="blocks; ViT-B has 12")] = 12,
    seconds: Annotated[float, typer.Option(help="time to read for")] = 15,
) -> None:
    """Time the loader and a run of the training loop."""
    torch.manual_seed(0)
    with tempfile.TemporaryDirectory() as name:
        table = write_noise(Path(name), clips)
        loaded = _clips_per_second(table, seconds)
        history = _train(Path(name), table, batch, steps, width, depth)
    steady = history.iloc[1:]  # the first step warms up
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
    """Of batches of 64 through the loader, after one that opens the files."""
    shards = pd.factorize(table["path"])[0]
    order = PairOrder(shards, np.ones(len(table), int), seed=0, window=4, batch=SHARD, streams=4)
    draw = WindowDraw(1024, False, _config(SHARD).spec_augment, seed=0)
    batches = iter(read_batches(table, MicroBatches(order, range(2**40)), draw, workers=0))
    next(batches)
    start, read = time.perf_counter(), 0
    while not read or time.perf_counter() < start + seconds:
        read += len(next(batches).pairs)
    return read / (time.perf_counter() - start)


def _train(
    folder: Path, table: pd.DataFrame, batch: int, steps: int, width: int, depth: int
) -> pd.DataFrame:
    """The history of a run of `steps` steps."""
    some = table.head(batch * steps)
    text = text_of(width, depth)
    tokenizer = build_tokenizer(text, [CAPTION])
    model = flap_of(encoder_of(width, depth), text)
    alone = Ranks(0, 1, torch.device("cpu"))
    trainer = Trainer(_config(batch), model, tokenizer, some, some.head(batch), alone)
    trainer.run(folder)
    return pd.read_csv(folder / HISTORY)


def _config(batch: int) -> PretrainConfig:
    section = load_section(Path("params.yaml"), "pretrain", PretrainConfig).model_dump()
    section |= {"mask": MASKED, "batch": batch, "epochs": 1, "streams": 1}
    return PretrainConfig.model_validate(section)


def write_noise(folder: Path, clips: int) -> pd.DataFrame:
    """Shards of noise, and the table of clips that training reads them by."""
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
