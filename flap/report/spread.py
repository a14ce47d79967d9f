"""A column → its distinct values and their rows: what a histogram needs, whatever the rows.

Shares of a few words and counts of words have few distinct values, so that a spread of a million
captions is as small as one of a thousand.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Spread:
    """Distinct values (V,) in rising order, and how many rows have each (V,)."""

    values: np.ndarray
    rows: np.ndarray

    @classmethod
    def of(cls, column: np.ndarray) -> "Spread":
        """Of a column (rows,) of numbers."""
        return cls(*np.unique(column.astype(float), return_counts=True))

    @classmethod
    def joined(cls, parts: Sequence["Spread"]) -> "Spread":
        """Of the rows of all parts together."""
        values, places = np.unique(
            np.concatenate([part.values for part in parts]), return_inverse=True
        )
        rows = np.zeros(len(values), dtype=np.int64)
        np.add.at(rows, places, np.concatenate([part.rows for part in parts]))
        return cls(values, rows)

    @property
    def total(self) -> int:
        """Rows over all values."""
        return int(self.rows.sum())

    @property
    def mean(self) -> float:
        """Over the rows, of which there is at least one."""
        return float(np.average(self.values, weights=self.rows))

    @property
    def median(self) -> float:
        """Over the rows, of which there is at least one; as numpy's median of the column."""
        ends = np.cumsum(self.rows)
        middle = np.searchsorted(ends, [(self.total - 1) // 2, self.total // 2], side="right")
        return float(self.values[middle].mean())
