"""CAPTIONS shards → metrics: kept and rejected captions, and how enrichment changed them.

One shard is in memory at a time. Across shards only sums are kept, and a hash of 8 bytes for
each kept caption.
"""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
from xxhash import xxh3_64_intdigest

from flap.captions.checks import REASONS
from flap.core.schemas import CAPTIONS
from flap.core.shards import read_table, shard_paths

_MEANS_OF_KEPT = {  # metric → column
    "coverage_original": "original_coverage",
    "coverage_enriched": "tag_coverage",
    "faithfulness": "faithfulness",
    "invented": "invented",
    "invented_sounds": "invented_sounds",
    "words_enriched": "n_words",
}
_USAGE = ("requests", "prompt_tokens", "answer_tokens")
_COLUMNS = ("original", "enriched", "kept", "reason", *_USAGE)
_WORD = r"[\pL\pN]+(?:['\x{2019}-][\pL\pN]+)*"


def caption_metrics(folder: Path) -> dict[str, Any]:
    """Metrics of the CAPTIONS shards in `folder`; shares and means are rounded to 4 places.

    Means are over the kept rows, and 0 if there are none. Two metrics measure problems that the
    paper reports of enriched captions, and are means over all rows with an answer:

    needless_detail: share of the answers with a content word from neither original nor tags.
    dropped_labels: mean share of the tags that the answer does not name.

    duplicates: number of kept captions that are equal to the kept caption of an earlier row.
    """
    columns = sorted({*_COLUMNS, *_MEANS_OF_KEPT.values()})
    sums, hashes = [], []
    for path in shard_paths(folder):
        table = read_table(path, CAPTIONS, columns)
        kept = table.filter(table["kept"])
        sums.append(_sums(table, kept))
        hashes.append(_text_hashes(kept["enriched"]))
    all_hashes = np.concatenate(hashes)
    n_duplicates = len(all_hashes) - len(np.unique(all_hashes))
    return _metrics(pd.DataFrame(sums).sum(), n_duplicates)


def _sums(table: pa.Table, kept: pa.Table) -> dict[str, float]:
    """Counts and sums over the rows of one shard."""
    answered = table.filter(pc.greater(table["requests"], 0))
    reasons = pc.value_counts(table["reason"]).to_pylist()
    words = pc.count_substring_regex(kept["original"], _WORD)
    return {
        "rows": len(table),
        "kept": len(kept),
        "answered": len(answered),
        **{f"rejected: {found['values']}": found["counts"] for found in reasons},
        **{metric: _sum(kept[column]) for metric, column in _MEANS_OF_KEPT.items()},
        "words_original": _sum(words),
        "needless_detail": _sum(pc.greater(answered["invented"], 0)),
        "dropped_labels": len(answered) - _sum(answered["tag_coverage"]),
        "retried": _sum(pc.greater(table["requests"], 1)),
        **{name: _sum(table[name]) for name in _USAGE},
    }


def _metrics(sums: "pd.Series[Any]", n_duplicates: int) -> dict[str, Any]:
    def mean(name: str, rows: str = "kept") -> float:
        return round(float(sums[name] / sums[rows]), 4) if sums[rows] else 0.0

    return {
        "rows": int(sums["rows"]),
        "kept": int(sums["kept"]),
        "kept_share": mean("kept", "rows"),
        "rejected": {reason: int(sums.get(f"rejected: {reason}", 0)) for reason in REASONS},
        **{metric: mean(metric) for metric in _MEANS_OF_KEPT},
        "words_original": mean("words_original"),
        "needless_detail": mean("needless_detail", "answered"),
        "dropped_labels": mean("dropped_labels", "answered"),
        "duplicates": n_duplicates,
        "retried": int(sums["retried"]),
        **{name: int(sums[name]) for name in _USAGE},
    }


def _text_hashes(texts: pa.ChunkedArray) -> np.ndarray:
    encoded = texts.cast(pa.binary()).to_pylist()
    return np.array([xxh3_64_intdigest(text) for text in encoded], np.uint64)


def _sum(values: pa.ChunkedArray) -> float:
    return pc.sum(values).as_py() or 0
