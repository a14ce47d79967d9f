"""Stage `retrieval`: a benchmark and the model it names → RANKS and scores."""

from typing import Annotated, Any

import typer

from flap.config import load_section
from flap.errors import UserError
from flap.retrieval.config import BenchmarksConfig, RetrievalConfig
from flap.schemas import RANKS
from flap.shards import read_folder, shard_name, shard_paths, write_rows
from flap.work import Work, fingerprint
from pipeline.stage import PARAMS, PathOption, run, write_metrics


def main(
    benchmark: Annotated[str, typer.Argument(help="name in section benchmarks of params.yaml")],
    clips: PathOption,
    mels: PathOption,
    model: PathOption,
    out: PathOption,
    metrics: PathOption,
) -> None:
    """Score audio-text retrieval both ways on one benchmark."""
    config = load_section(PARAMS, "retrieval", RetrievalConfig)
    benchmarks = load_section(PARAMS, "benchmarks", BenchmarksConfig).root
    if benchmark not in benchmarks:
        raise UserError(f"{PARAMS}: no benchmark '{benchmark}'; there are {', '.join(benchmarks)}")
    chosen = benchmarks[benchmark]
    inputs = [*shard_paths(mels / chosen.dataset), *model.glob("*.*")]
    work = Work.open(out, fingerprint(inputs, config, chosen))

    from flap.clips import (  # torch and transformers load after --help and errors
        count_described,
        usable_clips,
    )
    from flap.retrieval.benchmark import load_embedder, rank_benchmark
    from flap.retrieval.scores import describe, scores

    candidates = usable_clips(clips, mels, [chosen.dataset], [chosen.split])
    embedder = load_embedder(benchmark, chosen.model, model)
    rows = rank_benchmark(benchmark, candidates, embedder, config.batch)
    provenance = chosen.model_dump() | config.model_dump(mode="json")
    provenance |= {"ties": "a tied wrong answer is placed before the right one"}
    write_rows(work.folder / shard_name(0), rows, RANKS, provenance)
    found: dict[str, Any] = {"model": chosen.model.model_dump()}
    found |= {"clips_in_split": count_described(clips / chosen.dataset, chosen.split)}
    found |= scores(read_folder(work.folder, RANKS), config.recall_at)
    write_metrics(metrics, found)
    work.publish()
    print(describe(benchmark, found))


if __name__ == "__main__":
    run(main)
