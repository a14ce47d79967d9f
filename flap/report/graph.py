"""The graph of the stages as an inline SVG, with a count on each node."""

from collections.abc import Mapping

from markupsafe import Markup, escape

_BOX_W, _BOX_H, _STEP, _LEFT = 116, 50, 144, 8
_UPPER, _MIDDLE, _LOWER = 14, 112, 196
_WIDTH, _HEIGHT = 6 * _STEP + _BOX_W + 2 * _LEFT, 296

# (column, y) of each stage. The data flows through the middle row; audit, tagger and language model
# stand above and below.
_PLACES = {
    "sources": (0.0, _MIDDLE),
    "audio": (1.0, _MIDDLE),
    "audit": (0.5, _UPPER),
    "tagger": (1.5, _UPPER),
    "tagging": (2.0, _MIDDLE),
    "llm": (2.5, _LOWER),
    "captions": (3.0, _MIDDLE),
    "pretrain": (4.0, _MIDDLE),
    "retrieval": (5.0, _MIDDLE),
    "report": (6.0, _MIDDLE),
}
_STRAIGHT = (
    ("sources", "audio"),
    ("audio", "tagging"),
    ("tagging", "captions"),
    ("captions", "pretrain"),
    ("pretrain", "retrieval"),
    ("retrieval", "report"),
)
_ARROW = (
    '<marker id="arrow" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" '
    'orient="auto"><path class="head" d="M0 0.5 L8 4 L0 7.5 z"/></marker>'
)


def graph_svg(notes: Mapping[str, str]) -> Markup:
    """The graph.

    Args:
        notes: stage → short text under its name; a stage without one is shown as not run.
    """
    edges = [_line(*_right(start), *_left(end)) for start, end in _STRAIGHT]
    edges += [
        _curve(_top("audio", -24), _bottom("audit", 24), (0, -24), (0, 24)),
        _line(*_right("audit"), *_left("tagger")),
        _curve(_top("audio"), _bottom("tagger", -24), (0, -24), (0, 24)),
        _curve(_right("tagger"), _top("tagging"), (24, 0), (0, -40)),
        _curve(_right("tagger"), _top("pretrain"), (150, 0), (0, -70), "weights"),
        _curve(_right("llm"), _bottom("captions"), (24, 0), (0, 40)),
        _curve(_bottom("sources"), _bottom("captions", -24), (30, 40), (-30, 40), "captions"),
        _curve(_bottom("audio", -24), _bottom("pretrain"), (40, 150), (-20, 150), "log-mels"),
    ]
    nodes = [_node(stage, notes.get(stage, "")) for stage in _PLACES]
    summary = "; ".join(f"{stage}: {notes.get(stage) or 'not run'}" for stage in _PLACES)
    return Markup(
        f'<svg class="graph" role="img" viewBox="0 0 {_WIDTH} {_HEIGHT}" '
        f'aria-label="The stages and their counts. {escape(summary)}">'
        f"<defs>{_ARROW}</defs>{''.join(edges)}{''.join(nodes)}</svg>"
    )


def _corner(stage: str) -> tuple[float, float]:
    column, y = _PLACES[stage]
    return _LEFT + column * _STEP, y


def _left(stage: str) -> tuple[float, float]:
    x, y = _corner(stage)
    return x, y + _BOX_H / 2


def _right(stage: str) -> tuple[float, float]:
    x, y = _corner(stage)
    return x + _BOX_W, y + _BOX_H / 2


def _top(stage: str, shift: float = 0) -> tuple[float, float]:
    x, y = _corner(stage)
    return x + _BOX_W / 2 + shift, y


def _bottom(stage: str, shift: float = 0) -> tuple[float, float]:
    x, y = _corner(stage)
    return x + _BOX_W / 2 + shift, y + _BOX_H


def _line(x0: float, y0: float, x1: float, y1: float) -> str:
    return f'<path class="edge" d="M{x0:g} {y0:g} L{x1:g} {y1:g}" marker-end="url(#arrow)"/>'


def _curve(
    start: tuple[float, float],
    end: tuple[float, float],
    pull_start: tuple[float, float],
    pull_end: tuple[float, float],
    label: str = "",
) -> str:
    """A cubic Bézier curve; the pulls are its control points, relative to start and end."""
    points = (
        start,
        (start[0] + pull_start[0], start[1] + pull_start[1]),
        (end[0] + pull_end[0], end[1] + pull_end[1]),
        end,
    )
    a, b, c, d = (f"{x:g} {y:g}" for x, y in points)
    path = f'<path class="edge" d="M{a} C{b} {c} {d}" marker-end="url(#arrow)"/>'
    if not label:
        return path
    # The middle of a cubic curve weighs the ends by 1/8 and the control points by 3/8.
    x, y = (sum(w * p[i] for w, p in zip((1, 3, 3, 1), points, strict=True)) / 8 for i in (0, 1))
    return path + f'<text class="flow" x="{x:g}" y="{y - 5:g}">{escape(label)}</text>'


def _node(stage: str, note: str) -> str:
    x, y = _corner(stage)
    middle = x + _BOX_W / 2
    return (
        f'<rect class="node" x="{x:g}" y="{y:g}" width="{_BOX_W}" height="{_BOX_H}" rx="8"/>'
        f'<text class="stage" x="{middle:g}" y="{y + 21:g}">{stage}</text>'
        f'<text class="note" x="{middle:g}" y="{y + 38:g}">{escape(note or "not run")}</text>'
    )
