"""Findings → metrics for `dvc metrics diff`, and lines that say what to do about them."""

from collections.abc import Iterator
from typing import Any

import pandas as pd

from flap.audit.config import AuditConfig

FINDINGS = ("leak", "duplicate", "no_caption", "long_caption")  # the worst first
_LICENCES, _EXAMPLES = 10, 3
_PHRASES = {
    "leak": "leaks",
    "duplicate": "duplicates",
    "no_caption": "without caption",
    "long_caption": "with a long caption",
}


def metrics(clips: pd.DataFrame, audit: pd.DataFrame) -> dict[str, Any]:
    """Counts over all corpora, by pair of corpora, and by corpus.

    `leaks` and `duplicates` count by "corpus of the clip -> corpus of the clip it equals".
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
    """Clips by licence; some corpora name an author in each, so the rarest are one number."""
    found = clips["licence"].str.strip().replace("", "unknown").value_counts()
    found = found.sort_index().sort_values(ascending=False, kind="stable")
    named = {str(licence): int(rows) for licence, rows in found[:_LICENCES].items()}
    rest = int(found[_LICENCES:].sum())
    return named | ({"others": rest} if rest else {})


def lines(counts: dict[str, Any], audit: pd.DataFrame, config: AuditConfig) -> Iterator[str]:
    """What was found: a line a corpus, then for each finding examples and what to do.

    Args:
        counts: as `metrics` gives them.
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
    for row in rows[:_EXAMPLES].to_dict("records"):
        other = f" = {row['other']} ({row['other_split']})" if row["other"] else ""
        detail = f", {row['detail']}" if row["detail"] else ""
        yield f"  {row['clip_id']} ({row['split']}){other}{detail}"
    if len(rows) > _EXAMPLES:
        yield f"  and {len(rows) - _EXAMPLES} more"


def _advice(finding: str, config: AuditConfig) -> str:
    if finding == "leak":
        if config.drop_leaks:
            return "left out of training, by audit.drop_leaks"
        return "trained on, so scores come out too high; audit.drop_leaks: true leaves them out"
    if finding == "duplicate":
        if config.drop_duplicates:
            return "those in training left out, by audit.drop_duplicates"
        return "kept; audit.drop_duplicates: true trains on the first copy alone"
    if finding == "no_caption":
        return "for tagging and reconstruction; they make no pair and no query"
    return (
        f"more than audit.max_caption_words, {config.max_caption_words}; see whether they are "
        "captions, text encoders read the beginning alone"
    )
