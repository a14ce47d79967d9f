"""CAPTIONS shards → how much was kept, why the rest was not, what enriching did to the captions.

Shard by shard: of a million rows nothing stays in memory but sums, and 8 bytes a kept caption.
"""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
from xxhash import xxh3_64_intdigest

from flap.captions.audit import REASONS
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
_SPENT = ("requests", "prompt_tokens", "answer_tokens")
_COLUMNS = ("original", "enriched", "kept", "reason", *_SPENT)
_WORD = r"[\pL\pN]+(?:['\x{2019}-][\pL\pN]+)*"


def caption_metrics(folder: Path) -> dict[str, Any]:
    """A function of the CAPTIONS shards in `folder` alone; shares and means to 4 places.

    Means are over the rows that were kept, 0 if there are none; but these two, the paper's
    complaints about enriched captions, are over all rows with an answer:

    needless_detail: share of the answers with a content word of neither caption nor tags.
    dropped_labels: mean share of the tags that the answer does not name.

    duplicates: kept captions that an earlier row has word by word. A clip has one row.
    """
    columns = sorted({*_COLUMNS, *_MEANS_OF_KEPT.values()})
    sums, texts = [], []
    for path in shard_paths(folder):
        table = read_table(path, CAPTIONS, columns)
        kept = table.filter(table["kept"])
        sums.append(_sums(table, kept))
        texts.append(_hashes(kept["enriched"]))
    hashes = np.concatenate(texts)
    return _metrics(pd.DataFrame(sums).sum(), duplicates=len(hashes) - len(np.unique(hashes)))


def _sums(table: pa.Table, kept: pa.Table) -> dict[str, float]:
    """What is counted and summed up over the rows of one shard."""
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
        **{name: _sum(table[name]) for name in _SPENT},
    }


def _metrics(sums: "pd.Series[Any]", duplicates: int) -> dict[str, Any]:
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
        "duplicates": duplicates,
        "retried": int(sums["retried"]),
        **{name: int(sums[name]) for name in _SPENT},
    }


def _hashes(texts: pa.ChunkedArray) -> np.ndarray:
    spelled = texts.cast(pa.binary()).to_pylist()
    return np.array([xxh3_64_intdigest(text) for text in spelled], np.uint64)


def _sum(values: pa.ChunkedArray) -> float:
    return pc.sum(values).as_py() or 0
