"""Scores and parameters → the metadata of the model card, for the hub."""

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from huggingface_hub import EvalResult, ModelCardData

from flap.report.metrics import Benchmark

Sections = Mapping[str, dict[str, Any]]  # of params.yaml, as plain data

TAGS = ["audio", "audio-text-retrieval", "contrastive-learning", "flap", "safetensors"]
_HUB = "hf://"
_HUB_NAME = re.compile(r"\w[\w.-]*(/\w[\w.-]*)?", re.ASCII)
_TASKS = {  # task → the hub's type and name
    "retrieval": ("{way}-retrieval", "{way} retrieval"),
    "zero_shot": ("zero-shot-audio-classification", "zero-shot classification"),
    "linear_probe": ("audio-classification", "classification by a linear probe"),
}


def metadata(benchmarks: Sequence[Benchmark], sections: Sections) -> ModelCardData:
    """Licence, tags, scores and base models, in the form that the hub's search reads."""
    results = list(_eval_results(benchmarks, sections["benchmarks"]))
    return ModelCardData(
        license="other",
        license_name="terms-of-data-and-starting-weights",
        library_name="flap",
        pipeline_tag="feature-extraction",
        tags=TAGS,
        base_model=_base_models(sections) or None,
        model_name="FLAP" if results else None,
        eval_results=results or None,
    )


def _eval_results(
    benchmarks: Sequence[Benchmark], configs: Mapping[str, Any]
) -> Iterator[EvalResult]:
    """Scores of the trained model, without those of baselines."""
    for benchmark in (b for b in benchmarks if not b.baseline):
        config = configs[benchmark.name]
        for direction in benchmark.directions:
            task_type, task_name = _TASKS[config["task"]]
            way = direction.direction.replace("→", "to")
            for score in direction.scores:
                yield EvalResult(
                    task_type=task_type.format(way=way.replace(" ", "-")),
                    task_name=task_name.format(way=way),
                    dataset_type=config["dataset"],
                    dataset_name=config["dataset"],
                    dataset_config=benchmark.name,  # distinguishes benchmarks on one split
                    dataset_split=config["split"],
                    metric_type=score.name.replace("R@", "recall@"),
                    metric_name=score.name,
                    metric_value=score.share,
                )


def _base_models(sections: Sections) -> list[str]:
    """Names on the hub of the checkpoints that the encoders started from."""
    audio, text = sections["pretrain"]["audio_weights"], sections["model"]["text"]
    if audio == "tagger":
        audio = sections["tagger"]["weights"]
    found = []
    if isinstance(audio, Mapping) and audio["source"].startswith(_HUB):
        found.append(audio["source"].removeprefix(_HUB))
    if text["kind"] == "pretrained" and _HUB_NAME.fullmatch(text["source"]):
        found += [] if Path(text["source"]).is_dir() else [text["source"]]
    return found
