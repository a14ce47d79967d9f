"""Numbers → inline SVG: no fonts, dates or addresses inside, the same bytes every time.

Colours are written as the page's CSS variables, so that figures follow dark mode.
"""

import io
import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from markupsafe import Markup, escape

from flap.report.metrics import MaskCost
from flap.report.spread import Spread

# Stand-ins that matplotlib can draw with, and what the page calls them.
_INK, _GRID = "#010203", "#040506"
_SERIES = ("#070809", "#0a0b0c", "#0d0e0f", "#101112")
_VARIABLES = {_INK: "var(--muted)", _GRID: "var(--line)"} | {
    stand_in: f"var(--series-{position})" for position, stand_in in enumerate(_SERIES, start=1)
}
_WIDTH_INCH, _HEIGHT_INCH, _BINS, _MAX_POINTS = 4.6, 2.6, 24, 600
_STYLE: Any = {
    "svg.fonttype": "none",
    "svg.hashsalt": "flap",
    "font.size": 9,
    "text.color": _INK,
    "axes.edgecolor": _GRID,
    "axes.labelcolor": _INK,
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "grid.color": _GRID,
    "grid.linewidth": 0.6,
    "xtick.color": _INK,
    "ytick.color": _INK,
    "legend.frameon": False,
}


def histogram(spread: Spread, label: str, what: str, span: tuple[float, float] | None) -> Markup:
    """How the values are spread; `what` is counted on the y axis."""

    def draw(axes: Any) -> None:
        edges = _edges(spread.values, span)
        axes.hist(spread.values, bins=edges, weights=spread.rows, color=_SERIES[0])
        axes.set_ylabel(what)

    median = f"median {spread.median:.3g}" if spread.total else "no values"
    return _svg(draw, f"Histogram of {label} over {spread.total} {what}: {median}.")


def _edges(values: np.ndarray, span: tuple[float, float] | None) -> np.ndarray:
    """Bin edges over `span`, or from 0; whole numbers get bins of whole width."""
    low, high = span or (0.0, float(values.max(initial=1.0)))
    if span is None and (values == values.round()).all():
        width = max(1, math.ceil(high / _BINS))
        return np.arange(0, high + width + 1, width) - 0.5
    return np.linspace(low, high, _BINS + 1)


def curves(history: pd.DataFrame, columns: Sequence[str], label: str) -> Markup:
    """Columns of the history against its step; gaps are skipped, long runs thinned."""
    x = "step" if "step" in history else history.columns[0]
    series = {name: history[[x, name]].dropna() for name in columns}

    def draw(axes: Any) -> None:
        for colour, (name, points) in zip(_SERIES * len(columns), series.items(), strict=False):
            thin = points.iloc[:: max(1, len(points) // _MAX_POINTS)]
            mark = "o" if len(points) < 30 else None
            axes.plot(thin[x], thin[name], color=colour, label=name, marker=mark, markersize=3)
        axes.set_xlabel(x)
        if len(series) > 1:
            axes.legend()

    ends = [f"{name} ends at {p[name].iloc[-1]:.4g}" for name, p in series.items() if len(p)]
    return _svg(draw, f"{label} by {x}: {', '.join(ends)}.")


def history_charts(history: pd.DataFrame) -> list[tuple[str, Markup]]:
    """The charts that a history allows, those of its columns that hold numbers."""
    numeric = [str(name) for name in history if pd.api.types.is_numeric_dtype(history[name])]
    known = [name for name in numeric if history[name].notna().any()]
    groups: Mapping[str, list[str]] = {
        "loss": [name for name in known if name.endswith("_loss")],
        "validation": [name for name in known if name.startswith("val_") and "loss" not in name],
        "learning rate": [name for name in known if name == "learning_rate"],
        "logit scale": [name for name in known if name == "logit_scale"],
        "gradient norm": [name for name in known if name == "gradient_norm"],
        "pairs per second": [name for name in known if name == "pairs_per_second"],
        "MFU": [name for name in known if name == "mfu"],
    }
    return [(label, curves(history, names, label)) for label, names in groups.items() if names]


def compared_chart(histories: Mapping[str, pd.DataFrame], column: str) -> Markup:
    """A column of several runs' histories, one line a run, against the step."""
    lines = {name: history.set_index("step")[column] for name, history in histories.items()}
    joined = pd.DataFrame(lines).rename_axis("step").reset_index()
    return curves(joined, list(lines), f"{column} of {len(lines)} runs")


def flops_chart(costs: Sequence[MaskCost]) -> Markup:
    """GFLOPs against the ratio of each kind of mask, both from what no mask costs."""
    unmasked, *masked = costs
    lines = {
        name: pd.Series(
            {unmasked.ratio: unmasked.gflops}
            | {cost.ratio: cost.gflops for cost in masked if cost.mask == name}
        )
        for name in dict.fromkeys(cost.mask for cost in masked)
    }
    return curves(pd.DataFrame(lines).rename_axis("ratio").reset_index(), list(lines), "GFLOPs")


def _svg(draw: Any, description: str) -> Markup:
    import matplotlib as mpl
    from matplotlib.figure import Figure

    with mpl.rc_context(rc=_STYLE):
        figure = Figure(figsize=(_WIDTH_INCH, _HEIGHT_INCH), layout="constrained")
        draw(figure.add_subplot())
        buffer = io.StringIO()
        metadata = dict.fromkeys(("Date", "Creator", "Format", "Type"))
        figure.savefig(buffer, format="svg", transparent=True, metadata=metadata)
    return _inline(buffer.getvalue(), description)


def _inline(svg: str, description: str) -> Markup:
    """Only what HTML needs of an SVG file; ids that nothing refers to would clash."""
    body = svg[svg.index("<svg") :]
    body = re.sub(r"<metadata>.*?</metadata>", "", body, flags=re.DOTALL)
    body = re.sub(r"<!--.*?-->", "", body, flags=re.DOTALL)
    body = re.sub(r' (?:xmlns(?::\w+)?|version)="[^"]*"', "", body)
    body = re.sub(r' id="[\w.]+_\d+"', "", body).replace("xlink:href", "href")
    body = re.sub(r' (?:width|height)="[\d.]+pt"', "", body, count=2)
    for stand_in, variable in _VARIABLES.items():
        body = body.replace(stand_in, variable)
    body = re.sub(r"font: ([\d.]+)px [^;\"]*", r"font-size: \1px", body)
    label = escape(description)
    return Markup(body.replace("<svg", f'<svg role="img" aria-label="{label}"', 1))
