"""A column of numbers → its distribution: distinct values and the number of rows of each.

Word counts and shares of a few words have few distinct values, so the distribution of a million
captions is as small as that of a thousand.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Distribution:
    """Distinct values (V,) in ascending order, and the number of rows (V,) of each."""

    values: np.ndarray
    rows: np.ndarray

    @classmethod
    def from_column(cls, column: np.ndarray) -> "Distribution":
        """The distribution of a column (rows,)."""
        return cls(*np.unique(column.astype(float), return_counts=True))

    @classmethod
    def merged(cls, parts: Sequence["Distribution"]) -> "Distribution":
        """The distribution of the rows of all parts together."""
        values, index = np.unique(
            np.concatenate([part.values for part in parts]), return_inverse=True
        )
        rows = np.zeros(len(values), dtype=np.int64)
        np.add.at(rows, index, np.concatenate([part.rows for part in parts]))
        return cls(values, rows)

    @property
    def total(self) -> int:
        """Number of rows."""
        return int(self.rows.sum())

    @property
    def mean(self) -> float:
        """Mean over the rows; there must be at least one."""
        return float(np.average(self.values, weights=self.rows))

    @property
    def median(self) -> float:
        """Median over the rows, as `np.median` of the column; there must be at least one."""
        ends = np.cumsum(self.rows)
        middle = np.searchsorted(ends, [(self.total - 1) // 2, self.total // 2], side="right")
        return float(self.values[middle].mean())
