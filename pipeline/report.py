"""Stage `report`: tables and metrics of all stages → one HTML page, and the model card."""

from pathlib import Path

from pydantic import BaseModel

from flap.core.config import Section, load_section
from flap.core.shards import atomic_path
from flap.core.work import Work, fingerprint
from flap.llm.config import LlmConfig
from flap.model.config import EncoderConfig, ModelConfig
from flap.pretrain.config import PretrainConfig
from flap.report.config import ReportConfig
from flap.retrieval.config import BenchmarkConfig, BenchmarksConfig
from flap.sources.config import DatasetsConfig
from flap.tagger.config import TaggerConfig
from pipeline.stage import PARAMS, PathOption, run


def main(data: PathOption, metrics: PathOption, out: PathOption, card: PathOption) -> None:
    """Write OUT/index.html, a self-contained page, and CARD/README.md, the model card."""
    config = load_section(PARAMS, "report", ReportConfig)
    datasets = load_section(PARAMS, "datasets", DatasetsConfig)
    benchmarks = load_section(PARAMS, "benchmarks", BenchmarksConfig)
    sections: dict[str, BaseModel] = {
        "datasets": datasets,
        "benchmarks": benchmarks,
        "encoder": load_section(PARAMS, "encoder", EncoderConfig),
        "tagger": load_section(PARAMS, "tagger", TaggerConfig),
        "llm": load_section(PARAMS, "llm", LlmConfig),
        "model": load_section(PARAMS, "model", ModelConfig),
        "pretrain": load_section(PARAMS, "pretrain", PretrainConfig),
    }

    # These imports load the hub's client and the template engine.
    from flap.report.card import render_card
    from flap.report.facts import read_facts
    from flap.report.page import render

    baselines = {name: _baseline(benchmark) for name, benchmark in benchmarks.root.items()}
    facts = read_facts(data, metrics, list(datasets.root), baselines, config)
    plain = {name: section.model_dump(mode="json") for name, section in sections.items()}
    _publish(out, "index.html", render(facts), config)
    _publish(card, "README.md", render_card(facts, plain), config)


def _baseline(benchmark: BenchmarkConfig) -> str:
    """The model that a benchmark scores for comparison, '' if it scores the trained model."""
    model = benchmark.model
    if model.kind == "random":
        return "random embeddings"
    return "" if model.kind == "flap" else f"{model.source} ({model.kind})"


def _publish(out: Path, name: str, text: str, config: Section) -> None:
    """Publish the folder `out` with this one file in it."""
    work = Work.open(out, fingerprint("report", [], config, text=text))
    with atomic_path(work.folder / name) as temporary:
        temporary.write_text(text)
    work.publish()
    print(f"report: {out / name}, {len(text) // 1024} KiB")


if __name__ == "__main__":
    run(main)
