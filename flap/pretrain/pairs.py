"""Which captions each training clip is paired with (section 5 of the paper).

Enriched captions are added beside the originals: same audio, another caption.
"""

from collections.abc import Collection, Iterable
from pathlib import Path
from typing import Literal

import pandas as pd

from flap.clips import usable_clips
from flap.errors import UserError
from flap.schemas import CAPTIONS
from flap.shards import read_folder


def training_clips(
    clips: Path,
    mels: Path,
    captions: Path,
    datasets: Iterable[str],
    which: Literal["original", "enriched", "both", "none"],
    dropped: Collection[str] = (),
) -> pd.DataFrame:
    """Clips of the split `train` with the captions to pair them with, in shard order.

    Args:
        clips, mels, datasets, dropped: as of `usable_clips`.
        captions: folder of CAPTIONS folders, one a dataset (`data/captions`).

    Returns:
        As `usable_clips`, `captions` replaced; clips left without a caption are not in it. With
        `none`, for reconstruction alone, all clips, each without captions.
    """
    datasets = list(datasets)
    found = usable_clips(clips, mels, datasets, ["train"], dropped)
    if which == "none":
        return found.assign(captions=pd.Series([[] for _ in found.index], index=found.index))
    if which != "original":
        enriched = found["clip_id"].map(_kept_captions(captions, datasets))
        enriched = enriched.map(lambda kept: kept if isinstance(kept, list) else [])
        original = found["captions"].map(list)
        found["captions"] = original + enriched if which == "both" else enriched
    found = found[found["captions"].map(len) > 0].reset_index(drop=True)
    if found.empty:
        raise UserError(
            f"{captions}: no training clip has a caption with pretrain.captions={which}"
        )
    return found


def _kept_captions(captions: Path, datasets: Iterable[str]) -> "pd.Series[list[str]]":
    """clip_id → its enriched captions that passed the audit."""
    columns = ["clip_id", "enriched", "kept"]
    rows = pd.concat([read_folder(captions / dataset, CAPTIONS, columns) for dataset in datasets])
    return rows[rows["kept"]].groupby("clip_id")["enriched"].agg(list)
