"""CAPTIONS → how much was kept, why the rest was not, and what enriching did to the captions."""

from typing import Any

import pandas as pd

from flap.captions.audit import REASONS, tag_coverage
from flap.captions.words import words


def caption_metrics(captions: pd.DataFrame) -> dict[str, Any]:
    """A function of the table alone.

    `coverage_original` is what the originals name of their tags, the other measures are of the
    answers that were kept. The originals' own faithfulness is 1 by definition.
    """
    kept = captions[captions["kept"]]
    reasons = captions["reason"].value_counts()
    return {
        "rows": len(captions),
        "kept": len(kept),
        "kept_share": _round(len(kept) / len(captions)) if len(captions) else 0.0,
        "rejected": {reason: int(reasons.get(reason, 0)) for reason in REASONS},
        "coverage_original": _round(
            sum(map(tag_coverage, kept["tags"], kept["original"])) / max(len(kept), 1)
        ),
        "coverage_enriched": _mean(kept["tag_coverage"]),
        "faithfulness": _mean(kept["faithfulness"]),
        "invented": _mean(kept["invented"]),
        "words_original": _mean(kept["original"].map(lambda text: len(words(text)))),
        "words_enriched": _mean(kept["n_words"]),
    }


def _mean(values: "pd.Series[Any]") -> float:
    return _round(float(values.mean())) if len(values) else 0.0


def _round(value: float) -> float:
    return round(value, 4)
