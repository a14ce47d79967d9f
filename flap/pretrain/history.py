"""The history of a run as CSV, one row a step, which `dvc plots` draws."""

import csv
import math
from collections.abc import Callable
from pathlib import Path

import torch

from flap.core.shards import atomic_path
from flap.training.meter import Reading

Row = dict[str, str]
MEASURED = Reading._fields  # of the machine, unlike the others not the same in each run

_COLUMNS = (
    "step",
    "epoch",
    "loss",
    "contrastive_loss",  # the parts of `loss`, empty where not trained
    "reconstruction_loss",
    "learning_rate",
    "logit_scale",
    "gradient_norm",  # before clipping
    "val_loss",  # contrastive, or of reconstruction where that alone is trained
    "val_recall_at_10",  # mean of both directions
    *MEASURED,
)


class History:
    """Rows in memory and, after `flush`, on disk; `tell` is called with each new one."""

    def __init__(self, path: Path, rows: list[Row], tell: Callable[[Row], None] | None) -> None:
        self._path, self._rows, self._tell = path, rows, tell

    @classmethod
    def resume(
        cls, path: Path, steps_done: int, tell: Callable[[Row], None] | None = None
    ) -> "History":
        """The rows that `path` has of the first `steps_done` steps."""
        if not path.exists():
            return cls(path, [], tell)
        with path.open(newline="") as file:
            rows = [row for row in csv.DictReader(file) if int(row["step"]) <= steps_done]
        return cls(path, rows, tell)

    def add(self, **values: float | torch.Tensor | None) -> None:
        """Append a step; what is None or NaN becomes an empty cell."""
        row = dict.fromkeys(_COLUMNS, "")
        for name, value in values.items():
            if value is not None and not math.isnan(value):
                row[name] = f"{float(value):.6g}"
        self._rows.append(row)
        if self._tell is not None:
            self._tell(row)

    def flush(self) -> None:
        with atomic_path(self._path) as temporary, temporary.open("w", newline="") as file:
            writer = csv.DictWriter(file, _COLUMNS)
            writer.writeheader()
            writer.writerows(self._rows)
