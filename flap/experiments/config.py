"""Section `experiments` of experiments/rows.yaml."""

from typing import Any

from pydantic import Field, NonNegativeInt, model_validator

from flap.core.config import Section

Changes = dict[str, Any]  # section.key → value


def run_name(row: str, seed: int) -> str:
    """The name that DVC's `matrix` gives a run: <row>-<seed>."""
    return f"{row}-{seed}"


class RowConfig(Section):
    says: str  # the row's label
    changes: Changes


class TableConfig(Section):
    title: str
    beside: str  # the row to which the others are compared
    rows: dict[str, str]  # number in the paper → row
    paper: dict[str, tuple[float, float, float, float]]
    """R@1 in %, by number: AudioCaps T→A, AudioCaps A→T, Clotho T→A, Clotho A→T."""


class FigureConfig(Section):
    title: str
    series: dict[str, list[str]]  # name → rows


class ExperimentsConfig(Section):
    benchmarks: list[str]
    seeds: list[NonNegativeInt] = Field(min_length=1)
    repeated: list[str]  # rows that run with all seeds
    once: list[str]  # rows that run with the first seed
    changes: Changes  # of all rows
    rows: dict[str, RowConfig]
    tables: list[TableConfig]
    figure: FigureConfig

    @model_validator(mode="after")
    def _rows_are_known(self) -> "ExperimentsConfig":
        shown = [row for table in self.tables for row in (*table.rows.values(), table.beside)]
        shown += [row for rows in self.figure.series.values() for row in rows]
        trained = {*self.repeated, *self.once}
        if unknown := sorted({*shown, *trained} - set(self.rows)):
            raise ValueError(f"'rows' has no {', '.join(unknown)}")
        if absent := sorted(set(shown) - trained):
            raise ValueError(f"neither in 'repeated' nor in 'once': {', '.join(absent)}")
        if twice := sorted(set(self.repeated) & set(self.once)):
            raise ValueError(f"both in 'repeated' and in 'once': {', '.join(twice)}")
        for table in self.tables:
            if table.beside not in table.rows.values():
                raise ValueError(
                    f"{table.title}: 'beside' is {table.beside}, which is not a row of it"
                )
        return self

    def seeds_of(self, row: str) -> list[int]:
        return self.seeds if row in self.repeated else self.seeds[:1]

    @property
    def runs(self) -> dict[str, tuple[str, int]]:
        """Run name → (row, seed)."""
        rows = [*self.repeated, *self.once]
        return {run_name(row, seed): (row, seed) for row in rows for seed in self.seeds_of(row)}
