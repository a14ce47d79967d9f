"""Figure 3 and the validation curves as SVG files with the same bytes for the same numbers."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import cycle
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from flap.core.shards import atomic_path
from flap.core.svg import svg_axes
from flap.experiments.results import Estimate

_SIZE_INCH = (5.6, 3.4)
_STYLE = {"grid.color": "#dddddd"}
_COLOURS = ("#1b6ca8", "#c2571a", "#3d8b40", "#7a4ea3")


@dataclass(frozen=True)
class Point:
    """A row's point in Figure 3."""

    says: str
    gflops: float
    score: Estimate


def cost_figure(path: Path, series: Mapping[str, Sequence[Point]], score: str) -> None:
    """Draw scores against the GFLOPs of the audio encoder, one line per kind of mask."""
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
    """Draw a column of training histories, in %, against the epoch."""
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
    with atomic_path(path) as temporary, svg_axes(temporary, _SIZE_INCH, _STYLE) as axes:
        yield axes
