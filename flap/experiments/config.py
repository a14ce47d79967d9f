"""Section `experiments` of experiments/rows.yaml."""

from typing import Annotated, Any

from pydantic import Field, model_validator

from flap.core.config import Section

Changes = dict[str, Any]  # section.key → value


RunName = Annotated[str, Field(pattern=r"^.+-\d+$")]
"""<row>-<seed>"""


def run_name(row: str, seed: int) -> str:
    return f"{row}-{seed}"


def split_run(name: str) -> tuple[str, int]:
    """Row and seed of a run."""
    row, _, seed = name.rpartition("-")
    return row, int(seed)


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
    runs: list[RunName]
    changes: Changes  # of all rows
    rows: dict[str, RowConfig]
    tables: list[TableConfig]
    figure: FigureConfig

    @model_validator(mode="after")
    def _rows_are_known(self) -> "ExperimentsConfig":
        shown = [row for table in self.tables for row in (*table.rows.values(), table.beside)]
        shown += [row for rows in self.figure.series.values() for row in rows]
        trained = {row for row, _ in map(split_run, self.runs)}
        if unknown := sorted({*shown, *trained} - set(self.rows)):
            raise ValueError(f"'rows' has no {', '.join(unknown)}")
        if absent := sorted(set(shown) - trained):
            raise ValueError(f"'runs' has no run of {', '.join(absent)}")
        for table in self.tables:
            if table.beside not in table.rows.values():
                raise ValueError(
                    f"{table.title}: 'beside' is {table.beside}, which is not a row of it"
                )
        return self

    def seeds_of(self, row: str) -> list[int]:
        return [seed for other, seed in map(split_run, self.runs) if other == row]

    @property
    def repeated(self) -> list[str]:
        """Rows with several seeds."""
        rows = dict.fromkeys(row for row, _ in map(split_run, self.runs))
        return [row for row in rows if len(self.seeds_of(row)) > 1]
