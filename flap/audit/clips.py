"""CLIPS and MELS of all corpora → one frame with what tells recordings and captions apart.

A million clips fit: neither log-mels nor captions are held, of captions only their number and
the length of the longest.
"""

from collections.abc import Iterable
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from flap.core.schemas import CLIPS, MELS
from flap.core.shards import read_table, shard_paths

_KNOWN = ["clip_id", "dataset", "split", "licence", "origin"]
_WORD = r"\S{1,20}"  # so that text without blanks is long too
_HEARD = ["clip_id", "sha256", "mel_xxh3"]


def read_clips(clips: Path, mels: Path, datasets: Iterable[str]) -> pd.DataFrame:
    """One row a clip that has a mel, corpus after corpus, each in shard order.

    What cannot be heard is neither trained on nor scored, so it is left to the reject tables.

    Args:
        clips: folder of CLIPS folders, one a dataset (`data/sources`).
        mels: likewise for MELS (`data/audio`).

    Returns:
        Columns clip_id, dataset, split, licence and origin of CLIPS, sha256 and mel_xxh3 of
        MELS; captions, how many; longest, the position of the one with most words; words, its
        length. A clip without captions has 0 in all three.
    """
    shards = [
        _read_shard(clips / dataset / mel_shard.name, mel_shard)
        for dataset in datasets
        for mel_shard in shard_paths(mels / dataset)
    ]
    return pd.concat(shards, ignore_index=True)


def _read_shard(clips: Path, mels: Path) -> pd.DataFrame:
    table = read_table(clips, CLIPS, [*_KNOWN, "captions"]).replace_schema_metadata(None)
    captions = table["captions"].combine_chunks()
    known = table.select(_KNOWN).to_pandas()
    known["captions"] = pc.list_value_length(captions).to_numpy()
    known = known.join(_longest(captions)).fillna({"longest": 0, "words": 0})
    known = known.astype({"longest": "int32", "words": "int32"})
    return known.merge(read_table(mels, MELS, _HEARD).to_pandas(), on="clip_id")


def _longest(captions: pa.ListArray) -> pd.DataFrame:
    """Position and words of each clip's longest caption, by the clip's position."""
    spoken = pd.DataFrame(
        {
            "clip": pc.list_parent_indices(captions).to_numpy(),
            "words": pc.count_substring_regex(pc.list_flatten(captions), _WORD).to_numpy(),
        }
    )
    spoken["longest"] = spoken.groupby("clip").cumcount()
    longest_first = spoken.sort_values("words", ascending=False, kind="stable")
    return longest_first.drop_duplicates("clip").set_index("clip")
