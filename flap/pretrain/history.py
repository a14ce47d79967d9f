"""The history of a run as CSV, one row a step, which `dvc plots` draws."""

import csv
from pathlib import Path

from flap.pretrain.objective import Losses
from flap.shards import atomic_path

_COLUMNS = (
    "step",
    "epoch",
    "loss",
    "contrastive_loss",  # the parts of `loss`, empty where not trained
    "reconstruction_loss",
    "learning_rate",
    "logit_scale",
    "val_loss",  # contrastive, or of reconstruction where that alone is trained
)


class History:
    """Rows in memory and, after `flush`, on disk."""

    def __init__(self, path: Path, rows: list[dict[str, str]]) -> None:
        self._path, self._rows = path, rows

    @classmethod
    def resume(cls, path: Path, steps_done: int) -> "History":
        """The rows that `path` has of the first `steps_done` steps."""
        if not path.exists():
            return cls(path, [])
        with path.open(newline="") as file:
            rows = [row for row in csv.DictReader(file) if int(row["step"]) <= steps_done]
        return cls(path, rows)

    def add_step(self, *, losses: Losses, **values: float | None) -> None:
        """Append a step; None becomes an empty cell."""
        values["loss"] = losses.total.item()
        for name in ("contrastive", "reconstruction"):
            part = getattr(losses, name)
            values[f"{name}_loss"] = None if part is None else part.item()
        self._rows.append(
            {name: "" if values[name] is None else f"{values[name]:.6g}" for name in _COLUMNS}
        )

    def flush(self) -> None:
        with atomic_path(self._path) as temporary, temporary.open("w", newline="") as file:
            writer = csv.DictWriter(file, _COLUMNS)
            writer.writeheader()
            writer.writerows(self._rows)
