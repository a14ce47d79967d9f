"""Scores of the rows → the page docs/experiments/README.md with its figures."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pandas as pd

from flap.core.shards import atomic_path
from flap.experiments.config import ExperimentsConfig, TableConfig, run_name
from flap.experiments.cost import row_gflops
from flap.experiments.figures import Point, cost_figure, curve_figure
from flap.experiments.results import Estimate, RowScores, row_scores
from flap.retrieval.config import RetrievalConfig

_COLUMNS = {
    "T→A R@1": ("text_to_audio", "R@1"),
    "A→T R@1": ("audio_to_text", "R@1"),
    "T→A R@10": ("text_to_audio", "R@10"),
    "A→T R@10": ("audio_to_text", "R@10"),
}
_HEADLINE = "T→A R@1"
_CURVE = "val_recall_at_10"
_HEAD = """# The paper's tables and Figure 3, reproduced

`dvc repro experiments/dvc.yaml` trains and scores the rows that are not there yet, and writes this
page. [rows.yaml](../../experiments/rows.yaml) holds the rows; each is a short change of
`params.yaml`. The corpus is that of the benchmarks in this file.

- Scores are shares in %. The 95 % interval over the clips of the benchmark stands in brackets.
- If a row has several seeds, its score is their mean, ± their standard deviation.
- The intervals do not cover seeds. Between rows of one seed, trust only a difference that is larger
  than the intervals say.
- All rows see their pairs equally often. A doubled batch makes half as many steps. LLM captions add
  pairs, so they add steps.
- The paper's numbers are of AudioCaps and Clotho. Compare the order of the rows, not the height.

## Findings

"""


@dataclass(frozen=True)
class Study:
    """The definition of the runs and their results."""

    config: ExperimentsConfig
    retrieval: RetrievalConfig
    variants: Path  # folder of <row>-<seed>.yaml
    ranks: Path  # folder of the runs' RANKS
    histories: Path  # folder of <row>-<seed>.csv
    cache: dict[tuple[str, str, str], RowScores] = field(default_factory=dict)

    def scores(self, row: str, benchmark: str, column: str) -> tuple[RowScores, str]:
        """A row's scores in the direction of a column, and the name of the column's score."""
        direction, name = _COLUMNS[column]
        key = (row, benchmark, direction)
        if key not in self.cache:
            self.cache[key] = row_scores(self.ranks, self.config, *key, self.retrieval)
        return self.cache[key], name


def write_page(study: Study, findings: str, out: Path) -> None:
    """Write README.md and its figures into the folder `out`.

    Args:
        findings: Markdown, what a person concludes from the numbers.
    """
    parts = [_HEAD + findings.strip() + "\n"]
    for benchmark in study.config.benchmarks:
        parts += [_table(study, table, benchmark) for table in study.config.tables]
        parts.append(_figure(study, benchmark, out))
    curve_figure(out / "curves.svg", _curves(study), _CURVE)
    parts.append(
        "## Validation curves\n\nRecall at 10 on the split `val`, mean of both directions, for the "
        "first seed of each row with several seeds.\n\n![Recall at 10 by epoch](curves.svg)\n"
    )
    with atomic_path(out / "README.md") as temporary:
        temporary.write_text("\n".join(parts))


def _table(study: Study, table: TableConfig, benchmark: str) -> str:
    beside = {number for number, row in table.rows.items() if row == table.beside}
    head = ["", "", "seeds", *_COLUMNS, f"{_HEADLINE} minus row {', '.join(sorted(beside))}"]
    head += ["the paper's R@1: AudioCaps T→A, A→T; Clotho T→A, A→T"] if table.paper else []
    reference, name = study.scores(table.beside, benchmark, _HEADLINE)
    lines = []
    for number, row in table.rows.items():
        found = [study.scores(row, benchmark, column) for column in _COLUMNS]
        line = [number, study.config.rows[row].says, str(len(study.config.seeds_of(row)))]
        line += [_shown(scores.estimate(score)) for scores, score in found]
        line.append("" if row == table.beside else _signed(found[0][0].difference(reference, name)))
        if table.paper:
            line.append(", ".join(f"{known:.1f}" for known in table.paper.get(number, ())))
        lines.append(line)
    return f"## {table.title}, on {benchmark}\n\n{_markdown(head, lines)}"


def _figure(study: Study, benchmark: str, out: Path) -> str:
    figure, lines = study.config.figure, []
    series: dict[str, list[Point]] = {}
    for name, rows in figure.series.items():
        for row in rows:
            scores, score = study.scores(row, benchmark, _HEADLINE)
            variant = study.variants / f"{run_name(row, study.config.seeds_of(row)[0])}.yaml"
            point = Point(study.config.rows[row].says, row_gflops(variant), scores.estimate(score))
            series.setdefault(name, []).append(point)
            lines.append([name, point.says, f"{point.gflops:.2f}", _shown(point.score)])
    file = f"figure-{benchmark}.svg"
    cost_figure(out / file, series, _HEADLINE)
    table = _markdown(["", "", "GFLOPs", _HEADLINE], lines)
    return f"## {figure.title}, on {benchmark}\n\n![{figure.title}]({file})\n\n{table}"


def _curves(study: Study) -> Mapping[str, pd.DataFrame]:
    config = study.config
    return {
        config.rows[row].says: pd.read_csv(
            study.histories / f"{run_name(row, config.seeds_of(row)[0])}.csv"
        )
        for row in config.repeated
    }


def _shown(estimate: Estimate) -> str:
    over_seeds = "" if estimate.seed_std is None else f" ± {100 * estimate.seed_std:.1f}"
    low, high = (100 * estimate.interval[end] for end in ("low", "high"))
    return f"{100 * estimate.mean:.1f}{over_seeds} ({low:.1f} to {high:.1f})"


def _signed(estimate: Estimate) -> str:
    low, high = (100 * estimate.interval[end] for end in ("low", "high"))
    return f"{100 * estimate.mean:+.1f} ({low:+.1f} to {high:+.1f})"


def _markdown(head: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    rows = [head, ["---"] * len(head), *lines]
    return "".join(f"| {' | '.join(row)} |\n" for row in rows)
