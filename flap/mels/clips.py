"""CLIPS joined with MELS: the clips of a split that have a log-mel."""

from collections.abc import Collection, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow.parquet as pq

from flap.core.errors import UserError
from flap.core.schemas import AUDIT, CLIPS, MELS, REJECTS, is_absent_clip, provenance
from flap.core.shards import REJECTS_FOLDER, read_folder, read_table, shard_paths


def dropped_clips(audit: Path) -> frozenset[str]:
    """Ids of the training clips that the audit (AUDIT in `data/audit`) leaves out of training."""
    found = read_folder(audit, AUDIT, ["clip_id", "dropped"])
    return frozenset(found.loc[found["dropped"], "clip_id"])


def usable_clips(
    clips: Path,
    mels: Path,
    datasets: Iterable[str],
    splits: Sequence[str],
    dropped: Collection[str] = (),
) -> pd.DataFrame:
    """One row a clip of these datasets and splits that has a mel, in shard order.

    Args:
        clips: folder of CLIPS folders, one a dataset (`data/sources`).
        mels: likewise for MELS (`data/audio`).
        dropped: clips to leave out, as `dropped_clips` gives them.

    Returns:
        Columns clip_id, split, uri, offset, n_bytes, captions, labels, path (MELS shard) and
        row (position in it).
    """
    frames, datasets = [], list(datasets)
    for dataset in datasets:
        for mel_shard in shard_paths(mels / dataset):
            heard = read_table(mel_shard, MELS, ["clip_id"]).to_pandas()
            heard["path"], heard["row"] = str(mel_shard), np.arange(len(heard))
            columns = ["clip_id", "split", "uri", "offset", "n_bytes", "captions", "labels"]
            known = read_table(clips / dataset / mel_shard.name, CLIPS, columns).to_pandas()
            frames.append(known[known["split"].isin(splits)].merge(heard, on="clip_id"))
    found = pd.concat(frames)
    found = found[~found["clip_id"].isin(dropped)].reset_index(drop=True)
    if found.empty:
        left_out = f", {len(dropped)} clips left out by the audit" if dropped else ""
        raise UserError(
            f"{mels}: no clip of split {'/'.join(splits)} in {', '.join(datasets)}{left_out}; "
            "give that split clips in the corpus's CSV or in params.yaml, section datasets"
        )
    return found


def count_described(clips: Path, split: str) -> int:
    """Clips that a corpus says a split has, whether they are there or not.

    Args:
        clips: the corpus's folder of CLIPS, with its rejects.
    """
    present = read_folder(clips, CLIPS, ["split"])["split"] == split
    rejected = (clips / REJECTS_FOLDER).glob("shard-*.parquet")
    rows = [row for path in rejected for row in read_table(path, REJECTS).to_pylist()]
    absent = [row for row in rows if row["split"] == split and is_absent_clip(row["reason"])]
    return int(present.sum()) + len(absent)


def check_front_end(clips: pd.DataFrame, n_mels: int) -> dict[str, Any]:
    """The front end that made the MELS of these clips, by their metadata.

    Raises:
        UserError: they have not `n_mels` bins, or not all one front end.
    """
    paths = clips["path"].unique()
    front_end = provenance(pq.read_schema(paths[0]))
    if front_end.get("n_mels", n_mels) != n_mels:
        raise UserError(
            f"{paths[0]}: has {front_end['n_mels']} mel bins, encoder.n_mels is {n_mels}"
        )
    for path in paths[1:]:
        if provenance(pq.read_schema(path)) != front_end:
            raise UserError(f"{path}: has another front end than {paths[0]}; rerun stage audio")
    return front_end
