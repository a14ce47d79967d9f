"""Two benchmarks' RANKS → by how much one model is better, and how sure that is."""

from pathlib import Path
from typing import Annotated

import typer

from flap.config import load_section
from flap.retrieval.config import RetrievalConfig
from flap.schemas import RANKS
from flap.shards import read_folder
from pipeline.stage import PARAMS, run

RETRIEVAL = Path("data/retrieval")
Compared = Annotated[str, typer.Argument(help="a benchmark of params.yaml, or a folder of RANKS")]


def main(benchmark: Compared, other: Compared) -> None:
    """Compare two models, query by query: scores, difference, and its 95 % interval over clips.

    Both have to be of the same task on the same clips. Where 0 lies outside of the interval, other
    clips of the kind would hardly turn the difference around.
    """
    config = load_section(PARAMS, "retrieval", RetrievalConfig)

    from flap.retrieval.compare import compare  # pandas loads after --help and errors

    ranks, others = (read_folder(_folder(name), RANKS) for name in (benchmark, other))
    table = compare(ranks, others, config.recall_at, resamples=config.resamples, seed=config.seed)
    print(table.to_string(float_format="{:.4f}".format))


def _folder(name: str) -> Path:
    return Path(name) if Path(name).is_dir() else RETRIEVAL / name


if __name__ == "__main__":
    run(main)
