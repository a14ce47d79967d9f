"""The captions of each training clip (section 5 of the paper).

An enriched caption and its clip's audio form an additional pair beside the original ones.
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
from flap.pretrain.config import CaptionSource


def training_clips(
    clips: Path,
    mels: Path,
    captions: Path,
    datasets: Iterable[str],
    source: CaptionSource,
    dropped: Collection[str] = (),
    *,
    enriched_share: float = 1.0,
    seed: int = 0,
) -> pd.DataFrame:
    """Clips of the split `train` with their training captions, in shard order.

    Args:
        clips, mels, datasets, dropped: see `usable_clips`.
        captions: folder with a CAPTIONS folder for each dataset (`data/captions`).
        source: captions to use.
        enriched_share: share of the kept enriched captions to use, 0..1; see `is_sampled`.
        seed: seed of that sample.

    Returns:
        The table of `usable_clips` with the column `captions` replaced, without clips that have
        no caption. With the source `none`, all clips, with empty lists of captions.

    Raises:
        UserError: no clip has a caption.
    """
    datasets = list(datasets)
    found = usable_clips(clips, mels, datasets, ["train"], dropped)
    if source == "none":
        return found.assign(captions=pd.Series([[] for _ in found.index], index=found.index))
    if source != "original":
        enriched = found["clip_id"].map(_kept_captions(captions, datasets, enriched_share, seed))
        enriched = enriched.map(lambda kept: kept if isinstance(kept, list) else [])
        original = found["captions"].map(list)
        found["captions"] = original + enriched if source == "both" else enriched
    found = found[found["captions"].map(len) > 0].reset_index(drop=True)
    if found.empty:
        raise UserError(
            f"{captions}: no training clip has a caption with pretrain.captions={source}; "
            "choose other captions, or run the stage captions with other settings"
        )
    return found


def validation_clips(
    clips: Path, mels: Path, datasets: Iterable[str], source: CaptionSource
) -> pd.DataFrame:
    """Clips of the split `val`, as `usable_clips` returns them.

    Clips without captions are included only with the source `none`.

    Raises:
        UserError: no clip has a caption.
    """
    found = usable_clips(clips, mels, datasets, ["val"])
    if source == "none":
        return found
    found = found[found["captions"].map(len) > 0].reset_index(drop=True)
    if found.empty:
        raise UserError(
            f"{clips}: no clip of split val has a caption, so the model cannot be evaluated; add "
            "captions, or train with pretrain.captions=none"
        )
    return found


def is_sampled(share: float, seed: int, clip_id: str, caption: str) -> bool:
    """Whether a caption is in the sample of size `share`.

    The answer depends on the arguments only, not on the order of captions. A larger share
    contains the samples of all smaller shares.
    """
    digest = xxhash.xxh3_64_intdigest(f"{clip_id}\n{caption}".encode(), seed=seed)
    return digest < share * 2**64


def _kept_captions(
    captions: Path, datasets: Iterable[str], share: float, seed: int
) -> "pd.Series[list[str]]":
    """clip_id → the enriched captions that passed the audit and are in the sample."""
    columns = ["clip_id", "enriched", "kept"]
    rows = pd.concat([read_folder(captions / dataset, CAPTIONS, columns) for dataset in datasets])
    kept = rows[rows["kept"]]
    pairs = zip(kept["clip_id"], kept["enriched"], strict=True)
    sampled = np.array([is_sampled(share, seed, *pair) for pair in pairs], dtype=bool)
    return kept[sampled].groupby("clip_id")["enriched"].agg(list)
