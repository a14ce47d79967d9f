"""MELS → how loud, how clipped and how empty the recordings of a dataset are."""

from dataclasses import dataclass

import pandas as pd

COLUMNS = ["loudness_lufs", "silence", "clipping"]
CLIPPED, SILENT = 0.001, 0.5
"""Shares of samples at full scale and of silent frames above which a recording counts; a single
sample at full scale is what a peak-normalised recording has."""


@dataclass(frozen=True)
class Levels:
    """Of the recordings that could be decoded."""

    median_lufs: float | None  # None if all are too short to have a loudness
    clipped: float  # share of recordings
    silent: float


def levels(audio: pd.DataFrame) -> Levels:
    """Of the columns `COLUMNS` of MELS, at least one row."""
    loudness = audio["loudness_lufs"].dropna()
    return Levels(
        None if loudness.empty else float(loudness.median()),
        float((audio["clipping"] > CLIPPED).mean()),
        float((audio["silence"] > SILENT).mean()),
    )
