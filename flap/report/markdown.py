"""Text from data → Markdown that shows the text literally.

Special characters become HTML entities. By GitHub's rules, which the hub follows, an entity is
never parsed as its character: it does not end a table's cell, open a tag or start emphasis.
"""

import re
from typing import Any

from markupsafe import Markup

# Characters with a meaning in the middle of a line; `@` and `_` have one only at a word's edge.
_SPECIAL = re.compile(r"[#$&*<>\[\\\]^`{|}~]|(?<!\w)@|(?<![^\W_])_|_(?![^\W_])")


def inline(value: Any) -> Any:
    """`value` escaped for the middle of a line or a table's cell; `Markup` and numbers stay."""
    if not isinstance(value, str) or isinstance(value, Markup):
        return value
    line = "".join(letter if letter.isprintable() else " " for letter in value)
    return Markup(_SPECIAL.sub(lambda found: f"&#{ord(found[0])};", line))


def fenced(text: str, language: str) -> Markup:
    """A code block whose fence is longer than any run of backticks in `text`."""
    longest = max(map(len, re.findall("`+", text)), default=0)
    fence = "`" * max(3, longest + 1)
    return Markup(f"{fence}{language}\n{text.rstrip()}\n{fence}")
