"""Score a model of someone else on a split of a dataset, by the code that scores ours.

    python examples/score_other_model.py FOLDER [--dataset demo] [--split test]

FOLDER holds a FLAP model, or a ClapModel of transformers as safetensors with its processor. The
dataset has been through the stages `sources` and `audio`. A ClapModel hears the recordings
themselves, so they have to be there as well.
"""

import argparse
import json
from pathlib import Path

import pandas as pd

from flap.core.config import load_section
from flap.mels.clips import count_described
from flap.retrieval.benchmark import rank_benchmark, read_clips
from flap.retrieval.config import ReleasedClap, RetrievalConfig, RetrievalTask, SavedModel
from flap.retrieval.models import load_embedder
from flap.retrieval.scores import describe, scores


def model_in(folder: Path) -> SavedModel | ReleasedClap:
    """What the folder holds, by the `model_type` of its configuration."""
    kind = json.loads((folder / "config.json").read_text())["model_type"]
    if kind == "clap":
        return ReleasedClap(kind="clap", source=str(folder), revision="main")
    return SavedModel(kind="saved", source=str(folder))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--dataset", default="demo")
    parser.add_argument("--split", choices=["train", "val", "test"], default="test")
    parser.add_argument("--data", type=Path, default=Path("data"))
    parser.add_argument("--params", type=Path, default=Path("params.yaml"))
    args = parser.parse_args()

    config = load_section(args.params, "retrieval", RetrievalConfig)
    task = RetrievalTask(
        task="retrieval", dataset=args.dataset, split=args.split, model=model_in(args.folder)
    )
    name = f"{args.folder.name} on {args.dataset}-{args.split}"
    clips = read_clips(task, args.data / "sources", args.data / "audio")
    described = count_described(args.data / "sources" / args.dataset, args.split)
    embedder = load_embedder(name, task.model, args.folder, config)
    ranks = pd.DataFrame(rank_benchmark(name, task, clips, embedder, config))
    found = scores(ranks, config.recall_at, resamples=config.resamples, seed=config.seed)
    print(describe(name, found | {"clips_in_split": described}))


if __name__ == "__main__":
    main()
