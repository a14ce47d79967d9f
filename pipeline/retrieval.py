"""Stage `retrieval`: a benchmark and the model that it names → RANKS and scores."""

from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any

import typer

from flap.core.config import load_section
from flap.core.errors import UserError
from flap.core.metrics import write_metrics
from flap.core.schemas import RANKS
from flap.core.shards import read_folder, shard_name, shard_paths, write_rows
from flap.core.work import Work, fingerprint
from flap.retrieval.config import BenchmarksConfig, RetrievalConfig, SavedModel, ScoredModel
from pipeline.stage import PARAMS, PathOption, run


def main(
    benchmark: Annotated[str, typer.Argument(help="name in section benchmarks of params.yaml")],
    clips: PathOption,
    mels: PathOption,
    model: PathOption,
    out: PathOption,
    metrics: PathOption,
) -> None:
    """Score a model on one benchmark: retrieval in both directions, or classification."""
    config = load_section(PARAMS, "retrieval", RetrievalConfig)
    benchmarks = load_section(PARAMS, "benchmarks", BenchmarksConfig).root
    if benchmark not in benchmarks:
        raise UserError(f"{PARAMS}: no benchmark '{benchmark}'; there are: {', '.join(benchmarks)}")
    chosen = benchmarks[benchmark]
    inputs = [*shard_paths(mels / chosen.dataset), *_model_files(chosen.model, model)]
    work = Work.open(out, fingerprint("retrieval", inputs, config, chosen))

    # These imports load torch and transformers: after --help and errors of parameters.
    from flap.mels.clips import count_described
    from flap.retrieval.benchmark import rank_benchmark, read_clips
    from flap.retrieval.models import load_embedder
    from flap.retrieval.scores import describe, scores

    candidates = read_clips(chosen, clips, mels)
    embedder = load_embedder(benchmark, chosen.model, model, config)
    rows = rank_benchmark(benchmark, chosen, candidates, embedder, config)
    provenance = chosen.model_dump(mode="json") | config.model_dump(mode="json")
    provenance |= {"ties": "a tied wrong answer is placed before the right one"}
    write_rows(work.folder / shard_name(0), rows, RANKS, provenance)
    found: dict[str, Any] = {"task": chosen.task, "model": chosen.model.model_dump()}
    found |= {"clips_in_split": count_described(clips / chosen.dataset, chosen.split)}
    ranks = read_folder(work.folder, RANKS)
    found |= scores(ranks, config.recall_at, resamples=config.resamples, seed=config.seed)
    write_metrics(metrics, found)
    work.publish()
    print(f"{chosen.task} {describe(benchmark, found)}")


def _model_files(model: ScoredModel, own: Path) -> Iterable[Path]:
    """The files of a FLAP model, ours or a saved one; scores depend on them."""
    folder = Path(model.source) if isinstance(model, SavedModel) else own
    return sorted(folder.glob("*.*"))


if __name__ == "__main__":
    run(main)
