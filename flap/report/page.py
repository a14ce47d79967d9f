"""Facts → the HTML page. Text from data is escaped by the template engine."""

from markupsafe import Markup

from flap.core.metrics import flatten_metrics
from flap.report.captions import CaptionSummary
from flap.report.distribution import Distribution
from flap.report.examples import RULE
from flap.report.facts import Facts
from flap.report.figures import compared_chart, flops_chart, histogram, history_charts
from flap.report.graph import graph_svg
from flap.report.levels import CLIPPED, SILENT, levels
from flap.report.tables import Dataset
from flap.report.templating import environment, number, percent

_COMPARED = "val_recall_at_10"


def render(facts: Facts) -> str:
    """The page: one file that loads nothing else; the same facts give the same bytes."""
    template = environment(autoescape=True).get_template("report.html.j2")
    return template.render(
        facts=facts,
        cards=_cards(facts),
        levels={d.name: levels(d.audio) for d in facts.datasets if d.audio is not None},
        level_limits={"clipped": CLIPPED, "silent": SILENT},
        graph=graph_svg(_notes(facts)),
        audio_figures={d.name: _audio_figure(d) for d in facts.datasets if d.audio is not None},
        caption_figures={
            d.name: _caption_figures(d.captions) for d in facts.datasets if d.captions
        },
        rule=RULE,
        flops_chart=flops_chart(facts.flops) if facts.flops else None,
        charts=_charts(facts),
        tagger_metrics=list(flatten_metrics(facts.tagger or {}).items()),
    )


def _cards(facts: Facts) -> list[tuple[str, str, str]]:
    """Headline numbers as (value, name, remark)."""
    cards = []
    if clips := facts.total("audio"):
        hours = sum(d.hours for d in facts.datasets if d.hours is not None)
        cards.append((number(clips), "clips", f"{hours:.1f} h of sound"))
    asked = sum(d.captions.rows for d in facts.datasets if d.captions)
    if asked:
        kept = facts.total("captions")
        cards.append((number(kept), "enriched captions", f"{percent(kept / asked)} kept"))
    if facts.tagger and "mAP" in facts.tagger:
        chance = facts.tagger.get("chance")
        remark = f"chance {chance:.3f}" if isinstance(chance, float) else "mean average precision"
        cards.append((f"{facts.tagger['mAP']:.3f}", "tagger mAP", remark))
    for benchmark in (b for b in facts.benchmarks if not b.baseline):
        for direction in benchmark.directions:
            for score in direction.scores[:1]:
                remark = benchmark.name
                remark += "" if score.chance is None else f", chance {percent(score.chance)}"
                cards.append((percent(score.share), f"{direction.direction} {score.name}", remark))
    return cards


def _notes(facts: Facts) -> dict[str, str]:
    """The text on each node of the graph."""
    notes = {
        stage: f"{number(total)} {unit}"
        for stage, unit in (("sources", "clips"), ("audio", "log-mels"), ("tagging", "clips"))
        if (total := facts.total(stage))
    }
    if enriched := [d.captions for d in facts.datasets if d.captions]:
        asked = sum(captions.rows for captions in enriched)
        notes["captions"] = f"{number(facts.total('captions'))} of {number(asked)}"
        writers = {writer for captions in enriched for writer in captions.writers}
        notes["llm"] = " + ".join(sorted({writer.split(" (")[0] for writer in writers}))
    if facts.findings is not None:
        clips = sum(found.clips for rows in facts.findings.values() for found in rows)
        notes["audit"] = f"{number(clips)} finding{'' if clips == 1 else 's'}"
    if facts.tagger and "mAP" in facts.tagger:
        notes["tagger"] = f"mAP {facts.tagger['mAP']:.3f}"
    if facts.history is not None and "step" in facts.history:
        notes["pretrain"] = f"{number(int(facts.history['step'].max()))} steps"
    if scored := [benchmark for benchmark in facts.benchmarks if benchmark.directions]:
        notes["retrieval"] = f"{len(scored)} benchmark{'s' if len(scored) > 1 else ''}"
    return notes | {"report": "this page"}


def _charts(facts: Facts) -> list[tuple[str, Markup]]:
    """Charts of the training history, with one that compares it to other runs, if there are any."""
    if facts.history is None:
        return []
    charts = history_charts(facts.history)
    runs = {"this run": facts.history} | facts.compared
    runs = {name: history for name, history in runs.items() if _COMPARED in history}
    if len(runs) > 1:
        charts.append(("beside other runs", compared_chart(runs, _COMPARED)))
    return charts


def _audio_figure(dataset: Dataset) -> Markup:
    assert dataset.audio is not None
    durations = Distribution.from_column(dataset.audio["duration_s"].to_numpy())
    return histogram(durations, "duration, seconds", "clips", None)


def _caption_figures(captions: CaptionSummary) -> list[tuple[str, Markup]]:
    """Histograms of the answers' measures, without measures that have no values."""
    titles = (
        ("n_words", "words", None),
        ("tag_coverage", "share of tags named", (0.0, 1.0)),
        ("faithfulness", "share of the original kept", (0.0, 1.0)),
        ("invented", "share in neither original nor tags", (0.0, 1.0)),
        ("n_tokens", "tokens", None),
    )
    found = captions.distributions
    return [
        (label, histogram(found[name], label, "captions", span))
        for name, label, span in titles
        if found[name].total
    ]
