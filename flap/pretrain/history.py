"""The history of a run as a CSV with one row a step, for `dvc plots`."""

import csv
import math
from collections.abc import Callable
from pathlib import Path

import torch

from flap.core.shards import atomic_path
from flap.training.meter import StepMetrics

Row = dict[str, str]
MACHINE_COLUMNS = StepMetrics._fields  # depend on the machine, so they differ between runs

_COLUMNS = (
    "step",
    "epoch",
    "loss",
    "contrastive_loss",  # the parts of `loss`; empty if not trained
    "reconstruction_loss",
    "learning_rate",
    "logit_scale",
    "gradient_norm",  # before clipping
    "val_loss",  # contrastive; with captions: none, of reconstruction
    "val_recall_at_10",  # mean of both directions
    *MACHINE_COLUMNS,
)


class History:
    """Keeps rows in memory until `flush` writes them; `on_row` is called with each new row."""

    def __init__(self, path: Path, rows: list[Row], on_row: Callable[[Row], None] | None) -> None:
        self._path, self._rows, self._on_row = path, rows, on_row

    @classmethod
    def resume(
        cls, path: Path, steps_done: int, on_row: Callable[[Row], None] | None = None
    ) -> "History":
        """A history that continues with the rows of the first `steps_done` steps in `path`."""
        if not path.exists():
            return cls(path, [], on_row)
        with path.open(newline="") as file:
            rows = [row for row in csv.DictReader(file) if int(row["step"]) <= steps_done]
        return cls(path, rows, on_row)

    def add(self, **values: float | torch.Tensor | None) -> None:
        """Append the row of a step; None and NaN become empty cells."""
        row = dict.fromkeys(_COLUMNS, "")
        for name, value in values.items():
            if value is not None and not math.isnan(value):
                row[name] = f"{float(value):.6g}"
        self._rows.append(row)
        if self._on_row is not None:
            self._on_row(row)

    def flush(self) -> None:
        """Write all rows to disk atomically."""
        with atomic_path(self._path) as temporary, temporary.open("w", newline="") as file:
            writer = csv.DictWriter(file, _COLUMNS)
            writer.writeheader()
            writer.writerows(self._rows)
