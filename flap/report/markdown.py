"""Text from data → Markdown that shows it as it is, and means nothing.

GitHub's rules, which the hub follows: an entity never acts as the character it stands for, so
it can end no cell of a table, open no tag and begin no emphasis.
"""

import re
from typing import Any

from markupsafe import Markup

# What acts in the middle of a line; `@` and `_` do so only at the edge of a word.
_ACTING = re.compile(r"[#$&*<>\[\\\]^`{|}~]|(?<!\w)@|(?<![^\W_])_|_(?![^\W_])")


def inline(value: Any) -> Any:
    """`value` for the middle of a line or a table's cell; what is marked safe stays."""
    if not isinstance(value, str) or isinstance(value, Markup):
        return value
    line = "".join(letter if letter.isprintable() else " " for letter in value)
    return Markup(_ACTING.sub(lambda found: f"&#{ord(found[0])};", line))


def fenced(text: str, language: str) -> Markup:
    """A block of code by a fence that is longer than any in `text`."""
    longest = max(map(len, re.findall("`+", text)), default=0)
    fence = "`" * max(3, longest + 1)
    return Markup(f"{fence}{language}\n{text.rstrip()}\n{fence}")
