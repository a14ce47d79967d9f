"""A corpus's id of the upload that a recording was cut from → the column `origin` of CLIPS."""

import re
from typing import Any

_YOUTUBE_ID = re.compile(r"[\w-]{11}", re.ASCII)


def freesound_origin(number: Any) -> str:
    """freesound:<id> for a number (text, integer, or float as pandas reads it), otherwise "".

    Corpora write "Not found", "nan" and the like where the id is unknown. As ids these texts would
    make one upload of all such recordings.
    """
    text = str(number).strip().removesuffix(".0")
    return f"freesound:{text}" if text.isascii() and text.isdecimal() else ""


def youtube_origin(video: Any) -> str:
    """youtube:<id> for the eleven characters of a YouTube id, otherwise ""."""
    text = str(video).strip()
    return f"youtube:{text}" if _YOUTUBE_ID.fullmatch(text) else ""
