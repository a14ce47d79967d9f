"""CLIPS and MELS of all corpora → one DataFrame for the audit.

The DataFrame holds neither log-mels nor captions, so that a million clips fit into memory.
"""

from collections.abc import Iterable
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from flap.core.schemas import CLIPS, MELS
from flap.core.shards import read_table, shard_paths

_CLIPS_COLUMNS = ["clip_id", "dataset", "split", "licence", "origin"]
_MELS_COLUMNS = ["clip_id", "sha256", "mel_xxh3"]
_WORD = r"\S{1,20}"  # text without blanks counts as one word for every 20 characters


def read_clips(clips: Path, mels: Path, datasets: Iterable[str]) -> pd.DataFrame:
    """One row for each clip that has a log-mel, in the order of `datasets` and shards.

    Clips without a log-mel are in REJECTS; they are neither trained on nor scored.

    Args:
        clips: folder with a CLIPS folder for each dataset (`data/sources`).
        mels: folder with a MELS folder for each dataset (`data/audio`).

    Returns:
        Columns clip_id, dataset, split, licence and origin of CLIPS; sha256 and mel_xxh3 of MELS;
        captions: number of captions; longest: position of the caption with most words;
        words: number of words of that caption. The last three are 0 for a clip without captions.
    """
    shards = [
        _read_shard(clips / dataset / mel_shard.name, mel_shard)
        for dataset in datasets
        for mel_shard in shard_paths(mels / dataset)
    ]
    return pd.concat(shards, ignore_index=True)


def _read_shard(clips: Path, mels: Path) -> pd.DataFrame:
    table = read_table(clips, CLIPS, [*_CLIPS_COLUMNS, "captions"]).replace_schema_metadata(None)
    captions = table["captions"].combine_chunks()
    rows = table.select(_CLIPS_COLUMNS).to_pandas()
    rows["captions"] = pc.list_value_length(captions).to_numpy()
    rows = rows.join(_longest(captions)).fillna({"longest": 0, "words": 0})
    rows = rows.astype({"longest": "int32", "words": "int32"})
    return rows.merge(read_table(mels, MELS, _MELS_COLUMNS).to_pandas(), on="clip_id")


def _longest(captions: pa.ListArray) -> pd.DataFrame:
    """Position and number of words of each clip's longest caption; index: row of the clip."""
    lengths = pd.DataFrame(
        {
            "clip": pc.list_parent_indices(captions).to_numpy(),
            "words": pc.count_substring_regex(pc.list_flatten(captions), _WORD).to_numpy(),
        }
    )
    lengths["longest"] = lengths.groupby("clip").cumcount()
    longest_first = lengths.sort_values("words", ascending=False, kind="stable")
    return longest_first.drop_duplicates("clip").set_index("clip")
