"""Clips that are the same recording: leaks between training and evaluation, and duplicates.

Clips are compared by three columns. The first column with a match decides:

1. `sha256`: equal bytes.
2. `mel_xxh3`: equal log-mels, that is, equal samples in different containers.
3. `origin`: the same upload, such as one Freesound id in two corpora.

The first two are the rule `content`, the third is the rule `origin`. Two excerpts of one upload
are different recordings, but they share the room, the microphone and often the event. Therefore

- a *leak* by origin counts within a corpus and across corpora: an excerpt is no fair test of a
  model that was trained on another excerpt of the same upload;
- a *duplicate* by origin counts only across corpora. Within a corpus, excerpts of one upload are
  intended.

Every finding names the two clips that are equal, so two clips suffice to check it. Equality is not
transitive, with one exception: a training clip with the content of a leak is a leak as well.
"""

from collections.abc import Iterable

import pandas as pd

KEYS = ("sha256", "mel_xxh3", "origin")


def leaks(clips: pd.DataFrame) -> pd.DataFrame:
    """Training clips that are the same recording as a clip of a val or test split.

    Args:
        clips: result of `flap.audit.clips.read_clips`.

    Returns:
        One row for each leak. clip: index label in `clips`; other: index label of the first equal
        val or test clip, or else of the first leak with equal content; key: one of `KEYS`.
    """
    train = clips["split"] == "train"
    direct = _strongest(_firsts(clips[train], clips[~train], key) for key in KEYS)
    leaking = clips.loc[direct["clip"]]
    others = clips[train].drop(index=leaking.index)
    copies = [_firsts(others, leaking, key) for key in KEYS if key != "origin"]
    return _strongest([direct, *copies])


def duplicates(clips: pd.DataFrame) -> pd.DataFrame:
    """Clips that are the same recording as an earlier clip on the same side.

    The sides are training on the one hand, val and test on the other; equal clips on different
    sides are leaks. Clips are sorted by corpus, so the first copy is in the corpus that
    params.yaml names first.

    Returns:
        Columns as in `leaks`; one row for each clip that equals an earlier clip, `other`.
    """
    train = clips["split"] == "train"
    sides = (clips[train], clips[~train])
    return _strongest(_copies(side, key) for key in KEYS for side in sides)


def _copies(side: pd.DataFrame, key: str) -> pd.DataFrame:
    found = _firsts(side, side, key)
    found = found[found["clip"] != found["other"]]
    if key != "origin":
        return found
    dataset = side["dataset"]
    own, others = dataset.loc[found["clip"]], dataset.loc[found["other"]]
    return found[own.to_numpy() != others.to_numpy()]


def _firsts(clips: pd.DataFrame, among: pd.DataFrame, key: str) -> pd.DataFrame:
    """Each of `clips` whose non-empty `key` occurs in `among`, with the first such clip."""
    known = among.loc[among[key] != "", key].drop_duplicates()
    other = clips[key].map(pd.Series(known.index, index=known)).dropna().astype("int64")
    return pd.DataFrame({"clip": other.index, "other": other.to_numpy(), "key": key})


def _strongest(found: Iterable[pd.DataFrame]) -> pd.DataFrame:
    """One row for each clip, from the first frame that contains the clip; sorted by clip."""
    return pd.concat(found).drop_duplicates("clip").sort_values("clip", ignore_index=True)
