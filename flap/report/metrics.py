"""Metrics files → the scores, costs and histories on the page and on the model card."""

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
    """R@k or mAP@10, with its chance level and its 95 % interval over clips where known."""

    name: str
    share: float
    chance: float | None
    low: float | None
    high: float | None


@dataclass(frozen=True)
class DirectionScores:
    """The scores of a benchmark in one direction."""

    direction: str
    scores: list[Score]
    median_rank: float | None
    queries: int
    candidates: int


@dataclass(frozen=True)
class Benchmark:
    """Scores of one benchmark; `directions` is empty if it has not run."""

    name: str
    baseline: str  # the model that was scored; '' for the trained model
    clips: int
    directions: list[DirectionScores]


@dataclass(frozen=True)
class MaskCost:
    """Cost of the audio encoder under one mask, as the stage `flops` counted it."""

    mask: str
    ratio: float
    tokens: int
    gflops: float
    share: float  # of the GFLOPs without a mask


def read_json(path: Path) -> dict[str, Any] | None:
    """The content of a metrics file; None if there is no file.

    Raises:
        UserError: it is not JSON.
    """
    try:
        found = json.loads(path.read_text())
    except FileNotFoundError:
        return None
    except ValueError as error:
        raise UserError(f"{path}: not valid JSON ({error}); run its stage again") from None
    return found if isinstance(found, dict) else None


def read_history(path: Path) -> pd.DataFrame | None:
    """A training history; None if there is no file or no row."""
    try:
        history = pd.read_csv(path)
    except (FileNotFoundError, pd.errors.EmptyDataError):
        return None
    return None if history.empty else history


def read_compared(folder: Path) -> dict[str, pd.DataFrame]:
    """Histories of other runs by name; people put them into `folder` as <name>.csv."""
    found = {path.stem: read_history(path) for path in sorted(folder.glob("*.csv"))}
    return {name: history for name, history in found.items() if history is not None}


def read_flops(path: Path) -> list[MaskCost]:
    """Costs of the masks, no mask first; empty if the stage has not run."""
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
    """The scores of one benchmark, as the stage `retrieval` wrote them."""
    found = read_json(metrics / "retrieval" / f"{name}.json") or {}
    directions = [
        _direction_scores(label, found[direction])
        for direction, label in DIRECTIONS.items()
        if direction in found
    ]
    return Benchmark(name, baseline, found.get("clips", 0), directions)


def _direction_scores(label: str, found: dict[str, Any]) -> DirectionScores:
    chance, intervals = found.get("chance", {}), found.get("interval", {})
    scores = [
        Score(name, found[name], chance.get(name), interval.get("low"), interval.get("high"))
        for name in found
        if name.startswith("R@") or name == "mAP@10"
        for interval in [intervals.get(name, {})]
    ]
    median, queries = found.get("median_rank"), found.get("queries", 0)
    return DirectionScores(label, scores, median, queries, found.get("candidates", 0))
