"""AUDIT → what the page says of leaks, duplicates and captions."""

from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from flap.core.schemas import AUDIT
from flap.core.shards import read_folder

EXAMPLES = 3


@dataclass(frozen=True)
class Finding:
    """Clips of one dataset with one finding by one rule, with the first few as (name, text)."""

    finding: str
    rule: str
    clips: int
    dropped: int
    examples: list[tuple[str, str]]


def read_findings(folder: Path) -> dict[str, list[Finding]] | None:
    """Findings by dataset; one without any is not in it. None if the stage has not run."""
    if not any(folder.glob("shard-*.parquet")):
        return None
    rows = read_folder(folder, AUDIT)
    return {str(name): _findings(group) for name, group in rows.groupby("dataset")}


def _findings(rows: pd.DataFrame) -> list[Finding]:
    """In the table's order, which has the worst first."""
    return [
        Finding(str(finding), str(rule), len(group), int(group["dropped"].sum()), _examples(group))
        for (finding, rule), group in rows.groupby(["finding", "rule"], sort=False)
    ]


def _examples(rows: pd.DataFrame) -> list[tuple[str, str]]:
    first = rows[:EXAMPLES]
    other = "= " + first["other"] + " (" + first["other_split"] + "), "
    texts = other.where(first["other"] != "", "") + first["detail"]
    return list(zip(first["clip_id"], texts, strict=True))
