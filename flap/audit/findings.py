"""Clips of all corpora → rows of AUDIT."""

import pandas as pd

from flap.audit.config import AuditConfig
from flap.audit.sameness import duplicates, leaks
from flap.core.schemas import AUDIT, AUDIT_FINDINGS, AUDIT_RULES

_RULES = {"sha256": "content", "mel_xxh3": "content", "origin": "origin"}
_EQUAL = {"sha256": "equal bytes", "mel_xxh3": "equal log-mels"}


def find_problems(clips: pd.DataFrame, config: AuditConfig) -> pd.DataFrame:
    """All findings as rows of AUDIT, sorted by kind and within a kind by clip.

    A leak is not listed as a duplicate too. Only training clips are dropped: without some clips
    of val or test, scores would no longer be comparable.

    Args:
        clips: result of `flap.audit.clips.read_clips`.
    """
    leaking, copies = leaks(clips), duplicates(clips)
    copies = copies[~copies["clip"].isin(leaking["clip"])]
    in_training = clips["split"].loc[copies["clip"]].to_numpy() == "train"
    parts = (
        _same("leak", leaking, clips).assign(dropped=config.drop_leaks),
        _same("duplicate", copies, clips).assign(dropped=in_training & config.drop_duplicates),
        _no_caption(clips).assign(dropped=False),
        _long_caption(clips, config.max_caption_words).assign(dropped=False),
    )
    found = pd.concat(parts, ignore_index=True)
    assert set(found["finding"]) <= AUDIT_FINDINGS and set(found["rule"]) <= AUDIT_RULES
    return found[[column.name for column in AUDIT.columns]]


def _same(finding: str, found: pd.DataFrame, clips: pd.DataFrame) -> pd.DataFrame:
    """Pairs of clips as rows of AUDIT; the column `detail` holds the evidence."""
    keys = found["key"].reset_index(drop=True)
    others = clips.loc[found["other"]].reset_index(drop=True)
    return _rows(finding, clips.loc[found["clip"]]).assign(
        rule=keys.map(_RULES),
        other=others["clip_id"],
        other_dataset=others["dataset"],
        other_split=others["split"],
        detail=keys.map(_EQUAL).fillna(others["origin"]),
    )


def _no_caption(clips: pd.DataFrame) -> pd.DataFrame:
    return _rows("no_caption", clips[clips["captions"] == 0])


def _long_caption(clips: pd.DataFrame, max_words: int) -> pd.DataFrame:
    found = clips[clips["words"] > max_words]
    rows = _rows("long_caption", found)
    position, words = found["longest"].astype(str), found["words"].astype(str)
    rows["detail"] = ("caption #" + position + ": " + words + " words").to_numpy()
    return rows


def _rows(finding: str, clips: pd.DataFrame) -> pd.DataFrame:
    """Rows of AUDIT without `dropped`, for findings about one clip."""
    rows = clips[["clip_id", "dataset", "split"]].reset_index(drop=True)
    empty = dict.fromkeys(("rule", "other", "other_dataset", "other_split", "detail"), "")
    return rows.assign(finding=finding, **empty)
