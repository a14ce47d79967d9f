"""The template engine as the page and the model card use it, and how both write numbers."""

from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined


def environment(**options: Any) -> Environment:
    """Templates of this package; `options` say how text from data is escaped."""
    made = Environment(
        loader=PackageLoader("flap.report", "templates"),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        **options,
    )
    made.filters.update(n=number, percent=percent)
    return made


def number(value: float) -> str:
    """1234567 → 1,234,567; fractions to four digits."""
    return f"{value:,.0f}" if float(value).is_integer() else f"{value:.4g}"


def percent(share: float) -> str:
    return f"{100 * share:.1f} %"
