"""Metrics files: nested mappings of numbers as JSON, as `dvc metrics` reads them."""

import json
from pathlib import Path
from typing import Any

from flap.core.shards import atomic_path

_DECIMALS = 6


def write_metrics(path: Path, metrics: dict[str, Any]) -> None:
    """Write metrics as JSON, atomically; floats are rounded to six decimals."""
    with atomic_path(path) as temporary:
        temporary.write_text(json.dumps(_rounded(metrics), indent=2) + "\n")


def _rounded(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _rounded(item) for key, item in value.items()}
    return round(value, _DECIMALS) if isinstance(value, float) else value


def flatten_metrics(metrics: Any, name: str = "") -> dict[str, float]:
    """Every number of a nested mapping, by its keys joined with dots: {"a": {"b": 1}} → a.b.

    Texts, booleans, lists and nulls are left out.
    """
    if isinstance(metrics, dict):
        flat: dict[str, float] = {}
        for key, value in metrics.items():
            flat |= flatten_metrics(value, f"{name}.{key}" if name else str(key))
        return flat
    is_number = isinstance(metrics, int | float) and not isinstance(metrics, bool)
    return {name: float(metrics)} if is_number else {}
