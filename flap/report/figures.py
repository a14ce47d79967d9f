"""Numbers → inline SVG figures with the same bytes every time, without fonts, dates or links.

Colours become CSS variables of the page, so that figures follow its dark mode.
"""

import io
import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from markupsafe import Markup, escape

from flap.core.svg import svg_axes
from flap.report.distribution import Distribution
from flap.report.metrics import MaskCost

# Placeholder colours for matplotlib, and the CSS variables that replace them.
_INK, _GRID = "#010203", "#040506"
_SERIES = ("#070809", "#0a0b0c", "#0d0e0f", "#101112")
_VARIABLES = {_INK: "var(--muted)", _GRID: "var(--line)"} | {
    placeholder: f"var(--series-{i})" for i, placeholder in enumerate(_SERIES, start=1)
}
_SIZE_INCH, _BINS, _MAX_POINTS = (4.6, 2.6), 24, 600
_STYLE = {
    "text.color": _INK,
    "axes.edgecolor": _GRID,
    "axes.labelcolor": _INK,
    "axes.axisbelow": True,
    "grid.color": _GRID,
    "grid.linewidth": 0.6,
    "xtick.color": _INK,
    "ytick.color": _INK,
}


def histogram(
    distribution: Distribution, label: str, unit: str, span: tuple[float, float] | None
) -> Markup:
    """Histogram of a distribution.

    Args:
        label: what the values are.
        unit: what is counted on the y axis, such as "clips".
        span: of the x axis; None: from 0 to the highest value.
    """

    def draw(axes: Any) -> None:
        edges = _edges(distribution.values, span)
        axes.hist(distribution.values, bins=edges, weights=distribution.rows, color=_SERIES[0])
        axes.set_ylabel(unit)

    total = distribution.total
    median = f"median {distribution.median:.3g}" if total else "no values"
    return _svg(draw, f"Histogram of {label} over {total} {unit}: {median}.")


def _edges(values: np.ndarray, span: tuple[float, float] | None) -> np.ndarray:
    """Bin edges over `span`, or from 0 to the highest value; integers get bins of integer width."""
    low, high = span or (0.0, float(values.max(initial=1.0)))
    if span is None and (values == values.round()).all():
        width = max(1, math.ceil(high / _BINS))
        return np.arange(0, high + width + 1, width) - 0.5
    return np.linspace(low, high, _BINS + 1)


def curves(history: pd.DataFrame, columns: Sequence[str], label: str) -> Markup:
    """Columns of the history against its step; empty cells are skipped, long series are thinned."""
    x = "step" if "step" in history else history.columns[0]
    series = {name: history[[x, name]].dropna() for name in columns}

    def draw(axes: Any) -> None:
        for colour, (name, points) in zip(_SERIES * len(columns), series.items(), strict=False):
            thinned = points.iloc[:: max(1, len(points) // _MAX_POINTS)]
            mark = "o" if len(points) < 30 else None
            x_y = thinned[x], thinned[name]
            axes.plot(*x_y, color=colour, label=name, marker=mark, markersize=3)
        axes.set_xlabel(x)
        if len(series) > 1:
            axes.legend()

    ends = [f"{name} ends at {p[name].iloc[-1]:.4g}" for name, p in series.items() if len(p)]
    return _svg(draw, f"{label} by {x}: {', '.join(ends)}.")


def history_charts(history: pd.DataFrame) -> list[tuple[str, Markup]]:
    """(label, chart) of the known columns of a history that hold numbers."""
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
    """A column of several runs' histories against the step, one line per run."""
    lines = {name: history.set_index("step")[column] for name, history in histories.items()}
    joined = pd.DataFrame(lines).rename_axis("step").reset_index()
    return curves(joined, list(lines), f"{column} of {len(lines)} runs")


def flops_chart(costs: Sequence[MaskCost]) -> Markup:
    """GFLOPs against the mask ratio, one line per kind of mask, starting at the unmasked cost."""
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
    buffer = io.StringIO()
    with svg_axes(buffer, _SIZE_INCH, _STYLE, transparent=True) as axes:
        draw(axes)
    return _inline(buffer.getvalue(), description)


def _inline(svg: str, description: str) -> Markup:
    """An SVG file as an element of an HTML page, without ids that would clash between figures."""
    body = svg[svg.index("<svg") :]
    body = re.sub(r"<metadata>.*?</metadata>", "", body, flags=re.DOTALL)
    body = re.sub(r"<!--.*?-->", "", body, flags=re.DOTALL)
    body = re.sub(r' (?:xmlns(?::\w+)?|version)="[^"]*"', "", body)
    body = re.sub(r' id="[\w.]+_\d+"', "", body).replace("xlink:href", "href")
    body = re.sub(r' (?:width|height)="[\d.]+pt"', "", body, count=2)
    for placeholder, variable in _VARIABLES.items():
        body = body.replace(placeholder, variable)
    body = re.sub(r"font: ([\d.]+)px [^;\"]*", r"font-size: \1px", body)
    label = escape(description)
    return Markup(body.replace("<svg", f'<svg role="img" aria-label="{label}"', 1))
