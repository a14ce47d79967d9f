"""Tables and metrics of all stages → the facts on the page and on the model card."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from flap.report.config import ReportConfig
from flap.report.findings import Finding, read_findings
from flap.report.metrics import (
    Benchmark,
    MaskCost,
    read_benchmark,
    read_compared,
    read_flops,
    read_history,
    read_json,
)
from flap.report.tables import Dataset, read_dataset


@dataclass(frozen=True)
class Facts:
    """Results of the stages; those of a stage that has not run are empty or None."""

    datasets: list[Dataset]
    findings: dict[str, list[Finding]] | None  # of the audit, by dataset
    tagger: dict[str, Any] | None
    history: pd.DataFrame | None
    compared: dict[str, pd.DataFrame]  # histories of other runs, by name
    benchmarks: list[Benchmark]
    flops: list[MaskCost]

    def total(self, stage: str) -> int:
        """Rows that a stage wrote, over all datasets."""
        counts = (dataset.count(stage) for dataset in self.datasets)
        return sum(count.rows_out for count in counts if count)


def read_facts(
    data: Path,
    metrics: Path,
    datasets: Sequence[str],
    benchmarks: Mapping[str, str],
    config: ReportConfig,
) -> Facts:
    """Read the results of the named datasets and benchmarks.

    Args:
        data, metrics: the folders that the stages write.
        benchmarks: name → the baseline that the benchmark scores, '' for the trained model.
    """
    return Facts(
        datasets=[read_dataset(data, metrics, name, config) for name in datasets],
        findings=read_findings(data / "audit"),
        tagger=read_json(metrics / "tagger.json"),
        history=read_history(metrics / "pretrain.csv"),
        compared=read_compared(metrics / "compared"),
        benchmarks=[read_benchmark(metrics, *benchmark) for benchmark in benchmarks.items()],
        flops=read_flops(metrics / "flops.csv"),
    )
