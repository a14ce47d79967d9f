"""All that the stages left → the facts on the page and on the model card."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from flap.report.audit import Finding, read_findings
from flap.report.config import ReportConfig
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
    """What was read, once for both; what is not there yet is empty or None."""

    datasets: list[Dataset]
    findings: dict[str, list[Finding]] | None  # of the audit, by dataset
    tagger: dict[str, Any] | None
    history: pd.DataFrame | None
    compared: dict[str, pd.DataFrame]  # histories of other runs, by name
    benchmarks: list[Benchmark]
    flops: list[MaskCost]

    def total(self, stage: str) -> int:
        counts = (dataset.count(stage) for dataset in self.datasets)
        return sum(count.rows_out for count in counts if count)


def read_facts(
    data: Path,
    metrics: Path,
    datasets: Sequence[str],
    benchmarks: Mapping[str, str],
    config: ReportConfig,
) -> Facts:
    """Read what the stages left; only the named datasets and benchmarks count.

    Args:
        benchmarks: names, each with the baseline that it scores, '' for the trained model.
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
