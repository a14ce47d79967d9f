"""The upload that a recording was cut from, as corpora write it → as the audit compares it."""

import re
from typing import Any

_YOUTUBE_ID = re.compile(r"[\w-]{11}", re.ASCII)


def freesound_origin(number: Any) -> str:
    """freesound:<id> for a number as text, integer or float (pandas' form); "" for anything else.

    Corpora fill the gaps with "Not found", "nan" and the like, which would make all of their
    recordings one upload.
    """
    text = str(number).strip().removesuffix(".0")
    return f"freesound:{text}" if text.isascii() and text.isdecimal() else ""


def youtube_origin(video: Any) -> str:
    """youtube:<id> for YouTube's eleven characters; "" for anything else."""
    text = str(video).strip()
    return f"youtube:{text}" if _YOUTUBE_ID.fullmatch(text) else ""
