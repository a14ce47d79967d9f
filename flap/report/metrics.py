"""Metrics files → the scores on the page and on the model card."""

import csv
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from flap.core.errors import UserError

MASKS = {"none": "no mask", "1d": "1-D", "2d": "2-D"}
DIRECTIONS = {
    "text_to_audio": "text → audio",
    "audio_to_text": "audio → text",
    "audio_to_class": "audio → class",
}


@dataclass(frozen=True)
class Score:
    """R@k or mAP@10; what chance gives where that is known, and the 95 % interval over clips."""

    name: str
    share: float
    chance: float | None
    low: float | None
    high: float | None


@dataclass(frozen=True)
class Recall:
    """The scores of one direction."""

    direction: str
    shares: list[Score]
    median_rank: float | None
    queries: int
    candidates: int


@dataclass(frozen=True)
class Benchmark:
    """Scores of one benchmark; `recalls` is empty if it was not run."""

    name: str
    baseline: str  # the model that was scored, '' if it is the one that was trained
    clips: int
    recalls: list[Recall]


@dataclass(frozen=True)
class MaskCost:
    """What the audio encoder costs under one mask, as the stage `flops` counted it."""

    mask: str
    ratio: float
    tokens: int
    gflops: float
    share: float  # of the GFLOPs without a mask


def read_json(path: Path) -> dict[str, Any] | None:
    """A metrics file, None if it is not there."""
    try:
        found = json.loads(path.read_text())
    except FileNotFoundError:
        return None
    except ValueError as error:
        raise UserError(f"{path}: not valid JSON: {error}") from None
    return found if isinstance(found, dict) else None


def read_history(path: Path) -> pd.DataFrame | None:
    """The training history, None if it is not there or empty."""
    try:
        history = pd.read_csv(path)
    except (FileNotFoundError, pd.errors.EmptyDataError):
        return None
    return None if history.empty else history


def read_compared(folder: Path) -> dict[str, pd.DataFrame]:
    """Histories of other runs, put there by hand as <name>.csv."""
    found = {path.stem: read_history(path) for path in sorted(folder.glob("*.csv"))}
    return {name: history for name, history in found.items() if history is not None}


def read_flops(path: Path) -> list[MaskCost]:
    """Costs of the masks, that of no mask first; empty if the stage has not run."""
    if not path.exists():
        return []
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    unmasked = next(float(row["gflops"]) for row in rows if row["mask"] == "none")
    return [_mask_cost(row, unmasked) for row in rows]


def _mask_cost(row: dict[str, str], unmasked: float) -> MaskCost:
    gflops = float(row["gflops"])
    ratio, tokens = float(row["ratio"]), int(row["tokens"])
    return MaskCost(MASKS[row["mask"]], ratio, tokens, gflops, gflops / unmasked)


def read_benchmark(metrics: Path, name: str, baseline: str) -> Benchmark:
    """One benchmark's scores, as the stage `retrieval` wrote them."""
    scores = read_json(metrics / "retrieval" / f"{name}.json") or {}
    recalls = [
        _recall(label, scores[direction])
        for direction, label in DIRECTIONS.items()
        if direction in scores
    ]
    return Benchmark(name, baseline, scores.get("clips", 0), recalls)


def _recall(label: str, scores: dict[str, Any]) -> Recall:
    chance, interval = scores.get("chance", {}), scores.get("interval", {})
    shares = [
        Score(name, scores[name], chance.get(name), span.get("low"), span.get("high"))
        for name in scores
        if name.startswith("R@") or name == "mAP@10"
        for span in [interval.get(name, {})]
    ]
    median, queries = scores.get("median_rank"), scores.get("queries", 0)
    return Recall(label, shares, median, queries, scores.get("candidates", 0))


def flat_numbers(node: dict[str, Any], prefix: str = "") -> list[tuple[str, float]]:
    """Every number of a nested mapping, names joined by dots."""
    numbers: list[tuple[str, float]] = []
    for key, value in node.items():
        if isinstance(value, dict):
            numbers += flat_numbers(value, f"{prefix}{key}.")
        elif isinstance(value, int | float) and not isinstance(value, bool):
            numbers.append((f"{prefix}{key}", value))
    return numbers
