"""Facts and parameters → the model card: README.md of the model on the Hugging Face hub.

The card is YAML metadata and then Markdown. The template engine calls
`flap.report.markdown.inline` for every value, to escape text from data.
"""

import io
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from huggingface_hub import ModelCard
from ruamel.yaml import YAML

from flap.core.schemas import SPLITS
from flap.report.card_metadata import Sections, metadata
from flap.report.facts import Facts
from flap.report.markdown import fenced, inline
from flap.report.metrics import Benchmark, Score
from flap.report.tables import Dataset
from flap.report.templating import environment, number, percent

CONFIGURATION = ("encoder", "model", "pretrain")
MAX_LICENCES = 20  # of a dataset; in some corpora each licence names an author
_CAPTIONS = {
    "original": "the captions of the corpora",
    "enriched": "enriched captions only",
    "both": "the captions of the corpora and enriched captions",
    "none": "no captions: reconstruction only",
}
_UNKNOWN, _GAP = "unknown", "\N{EN DASH}"


def render_card(facts: Facts, sections: Sections) -> str:
    """The model card; the same facts and parameters give the same bytes.

    Args:
        sections: of params.yaml: `datasets`, `benchmarks`, `llm`, `tagger` and `CONFIGURATION`.
    """
    pretrain, benchmarks = sections["pretrain"], facts.benchmarks
    enriched = pretrain["captions"] in ("enriched", "both")
    body = (
        environment(finalize=inline)
        .get_template("card.md.j2")
        .render(
            audio_start=_audio_start(pretrain["audio_weights"]),
            captions=_captions(pretrain),
            configuration=fenced(_yaml({name: sections[name] for name in CONFIGURATION}), "yaml"),
            datasets=[_dataset_row(dataset, sections) for dataset in facts.datasets],
            enriched=enriched,
            has_text=pretrain["captions"] != "none",
            is_demo=all(dataset["adapter"] == "demo" for dataset in sections["datasets"].values()),
            licences=[row for dataset in facts.datasets for row in _licence_rows(dataset)],
            llm=sections["llm"] | {"source": _public(sections["llm"]["source"])},
            score_names=_score_names(benchmarks),
            scores=list(_score_rows(benchmarks)),
            splits=SPLITS,
            tagger=_tagger(sections["tagger"]),
            uses_tagger=enriched or pretrain["audio_weights"] == "tagger",
            text_start=_text_start(sections["model"]["text"]),
            training=_training(facts),
        )
    )
    card = "---\n{{ card_data }}\n---\n\n{{ body }}"
    data = metadata(benchmarks, sections)
    return f"{ModelCard.from_template(data, template_str=card, body=body)}\n"


def _captions(pretrain: Mapping[str, Any]) -> str:
    share = pretrain["enriched_share"]
    added = "" if share == 1 else f", of which {percent(share)} were drawn"
    return _CAPTIONS[pretrain["captions"]] + added


@dataclass(frozen=True)
class _DatasetRow:
    name: str
    adapter: str
    clips: list[str]  # of each of SPLITS
    hours: str
    enriched: str


def _dataset_row(dataset: Dataset, sections: Sections) -> _DatasetRow:
    splits = dict(dataset.splits or [])
    captions = dataset.captions
    return _DatasetRow(
        dataset.name,
        sections["datasets"][dataset.name]["adapter"],
        [number(splits.get(split, 0)) if splits else _GAP for split in SPLITS],
        _GAP if dataset.hours is None else f"{dataset.hours:.1f}",
        f"{number(captions.kept)} of {number(captions.rows)}" if captions else _GAP,
    )


def _licence_rows(dataset: Dataset) -> list[tuple[str, str, int]]:
    """(dataset, licence, recordings), the most frequent licences first."""
    found = dataset.licences or []
    rows = [(dataset.name, name or _UNKNOWN, clips) for name, clips in found[:MAX_LICENCES]]
    if rest := found[MAX_LICENCES:]:
        rows.append((dataset.name, f"{len(rest)} others", sum(clips for _, clips in rest)))
    return rows


@dataclass(frozen=True)
class _ScoreRow:
    benchmark: str
    model: str
    direction: str
    queries: int
    shares: list[str]  # with chance, in the order of `_score_names`
    median_rank: str


def _score_names(benchmarks: Sequence[Benchmark]) -> list[str]:
    directions = (each for benchmark in benchmarks for each in benchmark.directions)
    return list(dict.fromkeys(score.name for each in directions for score in each.scores))


def _score_rows(benchmarks: Sequence[Benchmark]) -> Iterator[_ScoreRow]:
    names = _score_names(benchmarks)
    for benchmark in benchmarks:
        model = _public(benchmark.baseline) or "this one"
        for found in benchmark.directions:
            shares = {score.name: _with_chance(score) for score in found.scores}
            yield _ScoreRow(
                benchmark.name,
                model,
                found.direction,
                found.queries,
                [shares.get(name, _GAP) for name in names],
                _GAP if found.median_rank is None else number(found.median_rank),
            )


def _with_chance(score: Score) -> str:
    share, chance = percent(score.share), score.chance
    return share if chance is None else f"{share} ({percent(chance)})"


def _training(facts: Facts) -> str:
    """The number of steps, and the last loss on validation clips."""
    history = facts.history
    if history is None:
        return "There is no training history."
    steps = f"Trained for {number(int(history['step'].max()))} steps"
    validated = history[["step", "val_loss"]].dropna()
    if validated.empty:
        return f"{steps}; the loss on validation clips was not measured."
    step, loss = validated.iloc[-1]
    return f"{steps}; the loss on validation clips was {number(loss)} at step {number(step)}."


def _audio_start(weights: str | Mapping[str, Any]) -> str:
    if isinstance(weights, Mapping):
        return _checkpoint(weights)
    return {"tagger": "the tagger", "scratch": "random weights"}[weights]


def _tagger(tagger: Mapping[str, Any]) -> str:
    start = _checkpoint(tagger["weights"]) if tagger["weights"] else "random weights"
    if not tagger["epochs"]:
        return f"is a released one, without further training: {start}"
    return f"was trained for {tagger['epochs']} epochs on the labels of the clips, from {start}"


def _checkpoint(weights: Mapping[str, Any]) -> str:
    parts = [_public(weights["source"])]
    parts += [f"{key} {weights[key]}" for key in ("revision", "sha256") if weights[key]]
    return ", ".join(parts)


def _text_start(text: Mapping[str, Any]) -> str:
    if text["kind"] == "scratch":
        return "random weights, with a vocabulary learned from the training captions"
    return f"{_public(text['source'])}, revision {text['revision']}"


def _yaml(sections: Sections) -> str:
    stream = io.StringIO()
    yaml = YAML(typ="safe", pure=True)
    yaml.default_flow_style, yaml.width, yaml.allow_unicode = False, 1000, True
    yaml.sort_base_mapping_type_on_output = False  # type: ignore[assignment]
    yaml.dump(_public(sections), stream)
    return stream.getvalue()


def _public(value: Any) -> Any:
    """`value` with absolute paths cut to their last part, because cards are published."""
    if isinstance(value, Mapping):
        return {key: _public(item) for key, item in value.items()}
    if isinstance(value, str) and Path(value).is_absolute():
        return Path(value).name
    return value
