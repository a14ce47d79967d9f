"""Matplotlib figures as SVG that have the same bytes for the same numbers: no dates, no fonts."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

_STYLE: dict[str, Any] = {
    "svg.fonttype": "none",
    "svg.hashsalt": "flap",
    "font.size": 9,
    "axes.grid": True,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "legend.frameon": False,
}


@contextmanager
def svg_axes(
    target: Path | IO[str],
    size_inch: tuple[float, float],
    style: Mapping[str, Any],
    *,
    transparent: bool = False,
) -> Iterator[Any]:
    """Axes to draw on within the block; the figure is saved at the block's end.

    Args:
        style: Matplotlib's settings beyond the common ones, colours above all.
    """
    import matplotlib as mpl
    from matplotlib.figure import Figure

    settings: Any = _STYLE | dict(style)
    with mpl.rc_context(rc=settings):
        figure = Figure(figsize=size_inch, layout="constrained")
        yield figure.add_subplot()
        metadata = dict.fromkeys(("Date", "Creator"))
        figure.savefig(target, format="svg", transparent=transparent, metadata=metadata)
