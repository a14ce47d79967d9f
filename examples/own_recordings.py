"""A folder of recordings with weak captions → enriched captions, beside the project's own data.

    python examples/own_recordings.py [FOLDER]

FOLDER holds recordings and `captions.csv`; if it does not exist, three recordings are made there.
The trained tagger and the language model are those of `make repro`. vLLM is started, or the
servers in FLAP_LLM_ENDPOINTS are asked.
"""

import argparse
import csv
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import soundfile
from ruamel.yaml import YAML

OUT = Path("build/example")
WEAK_CAPTIONS = {"low.wav": "A machine hums.", "high.wav": "A whistle.", "noise.wav": "Water."}


def record(folder: Path, rate_hz: int = 16000) -> None:
    """Make three recordings and the table that describes them."""
    folder.mkdir(parents=True)
    time_s = np.arange(3 * rate_hz) / rate_hz
    noise = np.random.default_rng(0).normal(0, 0.1, len(time_s))
    tones = [0.3 * np.sin(2 * np.pi * pitch_hz * time_s) for pitch_hz in (120, 2000)]
    for name, samples in zip(WEAK_CAPTIONS, [*tones, noise], strict=True):
        soundfile.write(folder / name, samples, rate_hz)
    with (folder / "captions.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("file_name", "caption"), *WEAK_CAPTIONS.items()])


def write_params(base: Path, recordings: Path, target: Path) -> None:
    """The parameters of the project, with one dataset, `mine`, and captions for every split."""
    yaml = YAML()
    params = yaml.load(base)
    fractions = {"train": 0.8, "val": 0.1, "test": 0.1}  # no column `split`: drawn
    where = {"path": str(recordings), "watch": str(recordings)}
    splits = {"splits": {"seed": 1, "fractions": fractions}}
    params["datasets"] = {"mine": {"adapter": "folder", **where, "captions": "required", **splits}}
    params["captions"]["splits"] = ["train", "val", "test"]
    target.parent.mkdir(parents=True, exist_ok=True)
    yaml.dump(params, target)


def run(stage: str, *arguments: object, params: Path) -> None:
    """One stage as a process, as DVC would run it."""
    command = [sys.executable, "-m", f"pipeline.{stage}", *map(str, arguments)]
    subprocess.run(command, env=os.environ | {"FLAP_PARAMS": str(params)}, check=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("folder", type=Path, nargs="?", default=OUT / "recordings")
    parser.add_argument("--out", type=Path, default=OUT)
    parser.add_argument("--params", type=Path, default=Path("params.yaml"))
    parser.add_argument("--tagger", type=Path, default=Path("data/tagger/model"))
    parser.add_argument("--llm", type=Path, default=Path("data/llm/model"))
    args = parser.parse_args()
    if not args.folder.exists():
        record(args.folder)
    params, data = args.out / "params.yaml", args.out / "data"
    write_params(args.params, args.folder, params)

    clips, mels, tags = (data / stage / "mine" for stage in ("sources", "audio", "tagging"))
    captions, metrics = data / "captions/mine", args.out / "captions.json"
    run("sources", "mine", "--out", clips, params=params)
    run("audio", "--clips", clips, "--out", mels, params=params)
    run("tagging", "--mels", mels, "--tagger", args.tagger, "--out", tags, params=params)
    inputs = ("--clips", clips, "--tags", tags, "--llm", args.llm)
    run("captions", *inputs, "--out", captions, "--metrics", metrics, params=params)

    for row in pd.read_parquet(captions).itertuples():
        verdict = "kept" if row.kept else f"rejected: {row.reason}"
        print(f"\n{row.clip_id} ({verdict})\n  {row.original}\n  {row.enriched.strip()}")


if __name__ == "__main__":
    main()
