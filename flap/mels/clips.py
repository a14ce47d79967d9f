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
    """Ids of the training clips that the audit leaves out of training.

    Args:
        audit: folder of AUDIT (`data/audit`).
    """
    found = read_folder(audit, AUDIT, ["clip_id", "dropped"])
    return frozenset(found.loc[found["dropped"], "clip_id"])


def usable_clips(
    clips: Path,
    mels: Path,
    datasets: Iterable[str],
    splits: Sequence[str],
    dropped: Collection[str] = (),
) -> pd.DataFrame:
    """One row for each clip of these datasets and splits that has a log-mel, in shard order.

    Args:
        clips: folder of CLIPS folders, one for each dataset (`data/sources`).
        mels: likewise of MELS folders (`data/audio`); shards or stubs.
        dropped: clips to leave out, as `dropped_clips` gives them.

    Returns:
        Columns clip_id, split, uri, offset, n_bytes, captions, labels, path (MELS shard) and
        row (position in it).

    Raises:
        UserError: there is no such clip.
    """
    frames, datasets = [], list(datasets)
    for dataset in datasets:
        for mel_shard in shard_paths(mels / dataset):
            mel_rows = read_table(mel_shard, MELS, ["clip_id"]).to_pandas()
            mel_rows["path"], mel_rows["row"] = str(mel_shard), np.arange(len(mel_rows))
            columns = ["clip_id", "split", "uri", "offset", "n_bytes", "captions", "labels"]
            clip_rows = read_table(clips / dataset / mel_shard.name, CLIPS, columns).to_pandas()
            frames.append(clip_rows[clip_rows["split"].isin(splits)].merge(mel_rows, on="clip_id"))
    found = pd.concat(frames)
    found = found[~found["clip_id"].isin(dropped)].reset_index(drop=True)
    if found.empty:
        left_out = f" ({len(dropped)} clips left out by the audit)" if dropped else ""
        raise UserError(
            f"{mels}: no clip of split {'/'.join(splits)} in {', '.join(datasets)}{left_out}; "
            "assign clips to that split in the corpus's CSV or in section datasets of params.yaml"
        )
    return found


def count_described(clips: Path, split: str) -> int:
    """Number of clips that the corpus lists for a split, present or absent.

    Args:
        clips: the corpus's folder of CLIPS, with its rejects.
    """
    present = read_folder(clips, CLIPS, ["split"])["split"] == split
    rejected = (clips / REJECTS_FOLDER).glob("shard-*.parquet")
    rows = [row for path in rejected for row in read_table(path, REJECTS).to_pylist()]
    absent = [row for row in rows if row["split"] == split and is_absent_clip(row["reason"])]
    return int(present.sum()) + len(absent)


def check_front_end(clips: pd.DataFrame, n_mels: int) -> dict[str, Any]:
    """The parameters of the front end that computed these clips' MELS, from their metadata.

    Raises:
        UserError: the log-mels do not have `n_mels` bins, or shards differ in their front end.
    """
    paths = clips["path"].unique()
    front_end = provenance(pq.read_schema(paths[0]))
    if front_end.get("n_mels", n_mels) != n_mels:
        raise UserError(
            f"{paths[0]}: has {front_end['n_mels']} mel bins, but encoder.n_mels is {n_mels}; make "
            "audio.n_mels and encoder.n_mels equal"
        )
    for path in paths[1:]:
        if provenance(pq.read_schema(path)) != front_end:
            raise UserError(f"{path}: front end differs from that of {paths[0]}; rerun stage audio")
    return front_end
