"""The template engine and the number formats of the page and the model card."""

from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined


def environment(**options: Any) -> Environment:
    """An environment for this package's templates; `options` set how text from data is escaped."""
    templates = Environment(
        loader=PackageLoader("flap.report", "templates"),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        **options,
    )
    templates.filters.update(n=number, percent=percent)
    return templates


def number(value: float) -> str:
    """1234567 → 1,234,567; fractions with four significant digits."""
    return f"{value:,.0f}" if float(value).is_integer() else f"{value:.4g}"


def percent(share: float) -> str:
    """0.125 → 12.5 %."""
    return f"{100 * share:.1f} %"
