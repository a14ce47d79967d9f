"""MELS → loudness, clipping and silence of a dataset's recordings."""

from dataclasses import dataclass

import pandas as pd

COLUMNS = ["loudness_lufs", "silence", "clipping"]
CLIPPED, SILENT = 0.001, 0.5
"""A recording counts as clipped above this share of samples at full scale, and as silent above this
share of silent frames. CLIPPED is not 0, as peak normalisation puts one sample at full scale."""


@dataclass(frozen=True)
class Levels:
    """Levels over the recordings that could be decoded."""

    median_lufs: float | None  # None if all recordings are too short for a loudness
    clipped: float  # share of recordings
    silent: float  # share of recordings


def levels(audio: pd.DataFrame) -> Levels:
    """
    Args:
        audio: the columns `COLUMNS` of MELS, with at least one row.
    """
    loudness = audio["loudness_lufs"].dropna()
    return Levels(
        None if loudness.empty else float(loudness.median()),
        float((audio["clipping"] > CLIPPED).mean()),
        float((audio["silence"] > SILENT).mean()),
    )
