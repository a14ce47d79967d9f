"""RANKS of two benchmarks → differences between the scores of their models, with intervals."""

from pathlib import Path
from typing import Annotated, Any

import pyarrow.parquet as pq
import typer

from flap.core.config import load_section
from flap.core.errors import UserError
from flap.core.schemas import RANKS, provenance
from flap.core.shards import read_folder, shard_paths
from flap.retrieval.config import RetrievalConfig
from pipeline.stage import PARAMS, run

RETRIEVAL = Path("data/retrieval")
Compared = Annotated[str, typer.Argument(help="a benchmark of params.yaml, or a folder of RANKS")]


def main(benchmark: Compared, other: Compared) -> None:
    """Compare two models, query by query: scores, difference, and its 95 % interval over clips.

    Both must be scored by the same task on the same clips. If 0 lies outside the interval, the
    difference is unlikely to be due to the choice of clips.
    """
    config = load_section(PARAMS, "retrieval", RetrievalConfig)

    from flap.retrieval.compare import compare

    first, second = (_folder(name) for name in (benchmark, other))
    task, other_task = (_task(folder) for folder in (first, second))
    if task != other_task:
        raise UserError(
            f"{first} and {second} were not scored by the same task: {task}, {other_task}; "
            "name two benchmarks that differ only in their model"
        )
    ranks, others = (read_folder(folder, RANKS) for folder in (first, second))
    table = compare(ranks, others, config.recall_at, resamples=config.resamples, seed=config.seed)
    print(table.to_string(float_format="{:.4f}".format))


def _folder(name: str) -> Path:
    return Path(name) if Path(name).is_dir() else RETRIEVAL / name


def _task(folder: Path) -> dict[str, Any]:
    """The settings that both models must share, from the metadata of RANKS."""
    settings = provenance(pq.read_schema(shard_paths(folder)[0]))
    return {key: settings.get(key) for key in ("task", "dataset", "split", "positives")}


if __name__ == "__main__":
    run(main)
