"""Which captions each training clip is paired with (section 5 of the paper).

Enriched captions are added beside the originals: same audio, another caption.
"""

from collections.abc import Collection, Iterable
from pathlib import Path

import numpy as np
import pandas as pd
import xxhash

from flap.core.errors import UserError
from flap.core.schemas import CAPTIONS
from flap.core.shards import read_folder
from flap.mels.clips import usable_clips
from flap.pretrain.config import Captions


def training_clips(
    clips: Path,
    mels: Path,
    captions: Path,
    datasets: Iterable[str],
    which: Captions,
    dropped: Collection[str] = (),
    *,
    enriched_share: float = 1.0,
    seed: int = 0,
) -> pd.DataFrame:
    """Clips of the split `train` with the captions to pair them with, in shard order.

    Args:
        clips, mels, datasets, dropped: as of `usable_clips`.
        captions: folder of CAPTIONS folders, one a dataset (`data/captions`).
        enriched_share: of the kept enriched captions those that are used, 0..1; see `is_drawn`.
        seed: which ones.

    Returns:
        As `usable_clips`, `captions` replaced; clips left without a caption are not in it. With
        `none`, for reconstruction alone, all clips, each without captions.
    """
    datasets = list(datasets)
    found = usable_clips(clips, mels, datasets, ["train"], dropped)
    if which == "none":
        return found.assign(captions=pd.Series([[] for _ in found.index], index=found.index))
    if which != "original":
        enriched = found["clip_id"].map(_kept_captions(captions, datasets, enriched_share, seed))
        enriched = enriched.map(lambda kept: kept if isinstance(kept, list) else [])
        original = found["captions"].map(list)
        found["captions"] = original + enriched if which == "both" else enriched
    found = found[found["captions"].map(len) > 0].reset_index(drop=True)
    if found.empty:
        raise UserError(
            f"{captions}: no training clip has a caption with pretrain.captions={which}"
        )
    return found


def validation_clips(
    clips: Path, mels: Path, datasets: Iterable[str], which: Captions
) -> pd.DataFrame:
    """Clips of the split `val`, as `usable_clips`; where captions are trained, those with some.

    Raises:
        UserError: there is none.
    """
    found = usable_clips(clips, mels, datasets, ["val"])
    if which == "none":
        return found
    found = found[found["captions"].map(len) > 0].reset_index(drop=True)
    if found.empty:
        raise UserError(
            f"{clips}: no clip of split val has a caption, so no evaluation can be made; give one "
            "some, or train with pretrain.captions=none"
        )
    return found


def is_drawn(share: float, seed: int, clip_id: str, caption: str) -> bool:
    """Whether a caption is among the `share` of all that are used.

    A function of its arguments alone, so of no order; a higher share draws the same and more.
    """
    digest = xxhash.xxh3_64_intdigest(f"{clip_id}\n{caption}".encode(), seed=seed)
    return digest < share * 2**64


def _kept_captions(
    captions: Path, datasets: Iterable[str], share: float, seed: int
) -> "pd.Series[list[str]]":
    """clip_id → its enriched captions that passed the audit and are drawn."""
    columns = ["clip_id", "enriched", "kept"]
    rows = pd.concat([read_folder(captions / dataset, CAPTIONS, columns) for dataset in datasets])
    kept = rows[rows["kept"]]
    pairs = zip(kept["clip_id"], kept["enriched"], strict=True)
    drawn = np.array([is_drawn(share, seed, *pair) for pair in pairs], dtype=bool)
    return kept[drawn].groupby("clip_id")["enriched"].agg(list)
