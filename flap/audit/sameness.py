"""Which clips are the same recording: leaks into training, and copies.

Three columns can tell, the strongest first; each clip is judged by the first that does.

1. `sha256`: equal bytes.
2. `mel_xxh3`: equal log-mels, so equal samples in another container.
3. `origin`: the same upload, such as Clotho's Freesound ids in another Freesound corpus.

The first two are the rule `content`, the last the rule `origin`. Two excerpts of one upload are
two recordings, yet they share a room, a microphone and often the very event. Hence

- a *leak* by origin counts within a corpus as across corpora: a model that was trained on one
  excerpt is not tested by the other;
- a *duplicate* by origin counts across corpora alone, where the same upload was taken in twice.
  Within a corpus it is how the corpus was cut, and no copy.

Sameness is direct, never by way of a third clip: each finding can be checked by looking at two.
One step further goes only the leak: what equals a leaking clip by content leaks as well.
"""

from collections.abc import Iterable

import pandas as pd

KEYS = ("sha256", "mel_xxh3", "origin")


def leaks(clips: pd.DataFrame) -> pd.DataFrame:
    """Training clips that are the same recording as a clip of any val or test split.

    Args:
        clips: as `flap.audit.clips.read_clips` gives them.

    Returns:
        Columns clip and other, index labels of `clips`, and key, one of `KEYS`: a row for each
        leaking clip with the first evaluation clip that it equals, or else the first leaking clip.
    """
    train = clips["split"] == "train"
    direct = _strongest(_firsts(clips[train], clips[~train], key) for key in KEYS)
    leaking = clips.loc[direct["clip"]]
    others = clips[train].drop(index=leaking.index)
    copies = [_firsts(others, leaking, key) for key in KEYS if key != "origin"]
    return _strongest([direct, *copies])


def duplicates(clips: pd.DataFrame) -> pd.DataFrame:
    """Clips that are the same recording as an earlier one on their side of the evaluation.

    Training is one side, val and test are the other: between them it is a leak. Clips stand
    corpus after corpus, so that of an upload the corpus named first holds the first clip.

    Returns:
        As `leaks`: a row for each clip after the first of its group, with that first one.
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
    ours, theirs = dataset.loc[found["clip"]], dataset.loc[found["other"]]
    return found[ours.to_numpy() != theirs.to_numpy()]


def _firsts(clips: pd.DataFrame, among: pd.DataFrame, key: str) -> pd.DataFrame:
    """Each of `clips` that has an equal, known `key` in `among`, with the first that has."""
    known = among.loc[among[key] != "", key].drop_duplicates()
    other = clips[key].map(pd.Series(known.index, index=known)).dropna().astype("int64")
    return pd.DataFrame({"clip": other.index, "other": other.to_numpy(), "key": key})


def _strongest(found: Iterable[pd.DataFrame]) -> pd.DataFrame:
    """One row a clip, by the earliest frame that has it, in the clips' order."""
    return pd.concat(found).drop_duplicates("clip").sort_values("clip", ignore_index=True)
