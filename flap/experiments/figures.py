"""Figure 3 and the validation curves as SVG files: the same numbers give the same bytes."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import cycle
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from flap.core.shards import atomic_path
from flap.experiments.results import Score

_STYLE: Any = {
    "svg.fonttype": "none",
    "svg.hashsalt": "flap",
    "font.size": 9,
    "axes.grid": True,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "grid.color": "#dddddd",
    "legend.frameon": False,
}
_COLOURS = ("#1b6ca8", "#c2571a", "#3d8b40", "#7a4ea3")


@dataclass(frozen=True)
class Point:
    """A row of Figure 3."""

    says: str
    gflops: float
    score: Score


def cost_figure(path: Path, series: Mapping[str, Sequence[Point]], score: str) -> None:
    """Scores against the GFLOPs of the audio encoder, one line a kind of mask."""
    with _axes(path) as axes:
        for colour, (name, points) in zip(cycle(_COLOURS), series.items()):
            rows = [(p.gflops, p.score.mean, *p.score.interval.values()) for p in points]
            x, means, lows, highs = np.array(sorted(rows)).T * [[1], [100], [100], [100]]
            reach = [means - lows, highs - means]
            axes.errorbar(x, means, reach, label=name, color=colour, marker="o", capsize=3)
        axes.set_xlabel("GFLOPs of the audio encoder, 8 windows")
        axes.set_ylabel(f"{score}, %")
        axes.legend()


def curve_figure(path: Path, histories: Mapping[str, pd.DataFrame], column: str) -> None:
    """A column of training histories against the pairs seen, in %."""
    with _axes(path) as axes:
        for colour, (name, history) in zip(cycle(_COLOURS), histories.items()):
            known = history.dropna(subset=[column])
            axes.plot(
                known["epoch"], known[column] * 100, label=name, color=colour, marker="o", ms=3
            )
        axes.set_xlabel("epoch")
        axes.set_ylabel(f"{column}, %")
        axes.legend()


@contextmanager
def _axes(path: Path) -> Iterator[Any]:
    import matplotlib as mpl
    from matplotlib.figure import Figure

    with mpl.rc_context(rc=_STYLE):
        figure = Figure(figsize=(5.6, 3.4), layout="constrained")
        yield figure.add_subplot()
        metadata = dict.fromkeys(("Date", "Creator"))
        with atomic_path(path) as temporary:
            figure.savefig(temporary, format="svg", metadata=metadata)
