"""Findings → metrics for `dvc metrics diff`, and lines of text with advice."""

from collections.abc import Iterator
from typing import Any

import pandas as pd

from flap.audit.config import AuditConfig

FINDINGS = ("leak", "duplicate", "no_caption", "long_caption")  # the most serious first
_MAX_LICENCES, _MAX_EXAMPLES = 10, 3
_PHRASES = {
    "leak": "leaks",
    "duplicate": "duplicates",
    "no_caption": "without caption",
    "long_caption": "with a long caption",
}


def metrics(clips: pd.DataFrame, audit: pd.DataFrame) -> dict[str, Any]:
    """Numbers of clips and findings over all corpora and for each corpus.

    `leaks` and `duplicates` count pairs "corpus of the clip -> corpus of the equal clip".
    """
    return {
        "clips": len(clips),
        **_counts(audit),
        "leaks": _pairs(audit, "leak"),
        "duplicates": _pairs(audit, "duplicate"),
        "datasets": {
            str(name): {
                "clips": len(rows),
                **_counts(audit[audit["dataset"] == name]),
                "licences": _licences(rows),
            }
            for name, rows in clips.groupby("dataset", sort=False)
        },
    }


def _counts(audit: pd.DataFrame) -> dict[str, int]:
    found = audit["finding"].value_counts()
    counts = {finding: int(found.get(finding, 0)) for finding in FINDINGS}
    return counts | {"dropped": int(audit["dropped"].sum())}


def _pairs(audit: pd.DataFrame, finding: str) -> dict[str, int]:
    rows = audit[audit["finding"] == finding]
    counts = (rows["dataset"] + " -> " + rows["other_dataset"]).value_counts()
    return {str(pair): int(rows) for pair, rows in counts.sort_index().items()}


def _licences(clips: pd.DataFrame) -> dict[str, int]:
    """Number of clips for each licence; rare licences are summed up as "others".

    Some corpora write the author into the licence, so each clip has a licence of its own.
    """
    found = clips["licence"].str.strip().replace("", "unknown").value_counts()
    found = found.sort_index().sort_values(ascending=False, kind="stable")
    named = {str(licence): int(rows) for licence, rows in found[:_MAX_LICENCES].items()}
    rest = int(found[_MAX_LICENCES:].sum())
    return named | ({"others": rest} if rest else {})


def summary_lines(
    counts: dict[str, Any], audit: pd.DataFrame, config: AuditConfig
) -> Iterator[str]:
    """A line with counts for each corpus, then advice and examples for each kind of finding.

    Args:
        counts: result of `metrics`.
    """
    for name, dataset in counts["datasets"].items():
        found = ", ".join(f"{dataset[finding]} {_PHRASES[finding]}" for finding in FINDINGS)
        yield f"{name}: {dataset['clips']} clips; {found}"
    for finding in FINDINGS:
        rows = audit[audit["finding"] == finding]
        if not rows.empty:
            yield f"{counts[finding]} {_PHRASES[finding]}: {_advice(finding, config)}"
            yield from _examples(rows)


def _examples(rows: pd.DataFrame) -> Iterator[str]:
    for row in rows[:_MAX_EXAMPLES].to_dict("records"):
        other = f" = {row['other']} ({row['other_split']})" if row["other"] else ""
        detail = f", {row['detail']}" if row["detail"] else ""
        yield f"  {row['clip_id']} ({row['split']}){other}{detail}"
    if len(rows) > _MAX_EXAMPLES:
        yield f"  and {len(rows) - _MAX_EXAMPLES} more"


def _advice(finding: str, config: AuditConfig) -> str:
    if finding == "leak":
        if config.drop_leaks:
            return "training leaves them out, because audit.drop_leaks is true"
        return "training uses them, so scores are too high; audit.drop_leaks: true leaves them out"
    if finding == "duplicate":
        if config.drop_duplicates:
            return "training leaves its copies out, because audit.drop_duplicates is true"
        return "training uses all copies; audit.drop_duplicates: true keeps only the first"
    if finding == "no_caption":
        return "used for tagging and reconstruction, but neither for pairs nor for queries"
    return (
        f"more than {config.max_caption_words} words (audit.max_caption_words); check whether "
        "they are captions: text encoders read only the beginning"
    )
