"""AUDIT → the findings on the page: leaks, duplicates and faulty captions."""

from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from flap.core.schemas import AUDIT
from flap.core.shards import read_folder

EXAMPLES = 3


@dataclass(frozen=True)
class Finding:
    """The clips of one dataset with the same finding by the same rule."""

    finding: str
    rule: str
    clips: int
    dropped: int  # clips left out of training
    examples: list[tuple[str, str]]  # (clip, text) of the first few


def read_findings(folder: Path) -> dict[str, list[Finding]] | None:
    """Findings by dataset, without datasets that have none; None if the stage has not run.

    Args:
        folder: of AUDIT.
    """
    if not any(folder.glob("shard-*.parquet")):
        return None
    rows = read_folder(folder, AUDIT)
    return {str(name): _findings(group) for name, group in rows.groupby("dataset")}


def _findings(rows: pd.DataFrame) -> list[Finding]:
    """In the order of the table, which starts with the worst."""
    return [
        Finding(str(finding), str(rule), len(group), int(group["dropped"].sum()), _examples(group))
        for (finding, rule), group in rows.groupby(["finding", "rule"], sort=False)
    ]


def _examples(rows: pd.DataFrame) -> list[tuple[str, str]]:
    first = rows[:EXAMPLES]
    other = "= " + first["other"] + " (" + first["other_split"] + "), "
    texts = other.where(first["other"] != "", "") + first["detail"]
    return list(zip(first["clip_id"], texts, strict=True))
