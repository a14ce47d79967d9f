"""Facts → the HTML page. Text from data is escaped by the template engine."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from flap.report.config import ReportConfig
from flap.report.figures import histogram, history_charts
from flap.report.graph import graph_svg
from flap.report.metrics import Benchmark, flat_numbers, read_benchmark, read_history, read_json
from flap.report.tables import Dataset, read_dataset

SECONDS_AN_HOUR = 3600


@dataclass(frozen=True)
class Facts:
    """All that the page shows."""

    datasets: list[Dataset]
    tagger: dict[str, Any] | None
    history: pd.DataFrame | None
    benchmarks: list[Benchmark]

    def total(self, stage: str) -> int:
        counts = (dataset.count(stage) for dataset in self.datasets)
        return sum(count.rows_out for count in counts if count)


def read_facts(
    data: Path,
    metrics: Path,
    datasets: Sequence[str],
    benchmarks: Sequence[str],
    config: ReportConfig,
) -> Facts:
    """Read what the stages left; only the named datasets and benchmarks count."""
    return Facts(
        datasets=[read_dataset(data, name, config) for name in datasets],
        tagger=read_json(metrics / "tagger.json"),
        history=read_history(metrics / "pretrain.csv"),
        benchmarks=[read_benchmark(metrics, name) for name in benchmarks],
    )


def render(facts: Facts) -> str:
    """The page: one file, nothing loaded from elsewhere, the same facts give the same bytes."""
    environment = Environment(
        loader=PackageLoader("flap.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(n=_number, percent=_percent)
    return environment.get_template("report.html.j2").render(
        facts=facts,
        cards=_cards(facts),
        graph=graph_svg(_notes(facts)),
        audio_figures={d.name: _audio_figure(d) for d in facts.datasets if d.audio is not None},
        caption_figures={d.name: _caption_figures(d) for d in facts.datasets if d.captions},
        charts=[] if facts.history is None else history_charts(facts.history),
        tagger_numbers=flat_numbers(facts.tagger or {}),
    )


def _cards(facts: Facts) -> list[tuple[str, str, str]]:
    """Headline numbers as (value, name, remark)."""
    cards = []
    if clips := facts.total("audio"):
        frames = [d.audio for d in facts.datasets if d.audio is not None]
        seconds = sum(float(frame["duration_s"].sum()) for frame in frames)
        hours = f"{seconds / SECONDS_AN_HOUR:.1f} h of sound"
        cards.append((_number(clips), "clips", hours))
    asked = sum(len(d.captions.numbers) for d in facts.datasets if d.captions)
    if asked:
        kept = facts.total("captions")
        cards.append((_number(kept), "enriched captions", f"{_percent(kept / asked)} kept"))
    if facts.tagger and "mAP" in facts.tagger:
        chance = facts.tagger.get("chance")
        remark = f"chance {chance:.3f}" if isinstance(chance, float) else "mean average precision"
        cards.append((f"{facts.tagger['mAP']:.3f}", "tagger mAP", remark))
    for benchmark in facts.benchmarks:
        for recall in benchmark.recalls:
            for name, share, chance in recall.shares[:1]:
                remark = benchmark.name
                remark += "" if chance is None else f", chance {_percent(chance)}"
                cards.append((_percent(share), f"{recall.direction} {name}", remark))
    return cards


def _notes(facts: Facts) -> dict[str, str]:
    """The text on each node of the graph."""
    notes = {
        stage: f"{_number(total)} {unit}"
        for stage, unit in (("sources", "clips"), ("audio", "log-mels"), ("tagging", "clips"))
        if (total := facts.total(stage))
    }
    if enriched := [d.captions for d in facts.datasets if d.captions]:
        asked = sum(len(captions.numbers) for captions in enriched)
        notes["captions"] = f"{_number(facts.total('captions'))} of {_number(asked)}"
        notes["llm"] = " + ".join(sorted({w.split(" (")[0] for c in enriched for w in c.writers}))
    if facts.tagger and "mAP" in facts.tagger:
        notes["tagger"] = f"mAP {facts.tagger['mAP']:.3f}"
    if facts.history is not None and "step" in facts.history:
        notes["pretrain"] = f"{_number(int(facts.history['step'].max()))} steps"
    if scored := [benchmark for benchmark in facts.benchmarks if benchmark.recalls]:
        notes["retrieval"] = f"{len(scored)} benchmark{'s' if len(scored) > 1 else ''}"
    return notes | {"report": "this page"}


def _audio_figure(dataset: Dataset) -> Markup:
    assert dataset.audio is not None
    return histogram(dataset.audio["duration_s"], "duration, seconds", "clips", None)


def _caption_figures(dataset: Dataset) -> list[tuple[str, Markup]]:
    assert dataset.captions is not None
    numbers = dataset.captions.numbers
    answered = numbers[numbers["n_words"] > 0]
    titles = (
        ("tag_coverage", "share of tags named", (0.0, 1.0)),
        ("faithfulness", "share of the original kept", (0.0, 1.0)),
        ("invented", "share in neither original nor tags", (0.0, 1.0)),
        ("n_words", "words", None),
    )
    return [
        (label, histogram(answered[name], label, "captions", span)) for name, label, span in titles
    ]


def _number(value: float) -> str:
    """1234567 → 1,234,567; fractions to four digits."""
    return f"{value:,.0f}" if float(value).is_integer() else f"{value:.4g}"


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %"
