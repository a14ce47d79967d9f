"""Two benchmarks' RANKS → by how much one model is better, and how sure that is."""

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

    Both have to be of the same task on the same clips. Where 0 lies outside of the interval, other
    clips of the kind would hardly turn the difference around.
    """
    config = load_section(PARAMS, "retrieval", RetrievalConfig)

    from flap.retrieval.compare import compare  # pandas loads after --help and errors

    own, beside = (_folder(name) for name in (benchmark, other))
    rules, other_rules = (_rules(folder) for folder in (own, beside))
    if rules != other_rules:
        raise UserError(f"{own} and {beside} are no two models on one task: {rules}, {other_rules}")
    ranks, others = (read_folder(folder, RANKS) for folder in (own, beside))
    table = compare(ranks, others, config.recall_at, resamples=config.resamples, seed=config.seed)
    print(table.to_string(float_format="{:.4f}".format))


def _folder(name: str) -> Path:
    return Path(name) if Path(name).is_dir() else RETRIEVAL / name


def _rules(folder: Path) -> dict[str, Any]:
    """What two models have to be scored by alike, as the stage noted it in RANKS."""
    noted = provenance(pq.read_schema(shard_paths(folder)[0]))
    return {key: noted.get(key) for key in ("task", "dataset", "split", "positives")}


if __name__ == "__main__":
    run(main)
