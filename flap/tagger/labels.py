"""Labels of clips → multi-hot targets over the tagger's classes."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

_MAX_LISTED = 5


@dataclass(frozen=True)
class Targets:
    """The targets of C clips over X classes, and the labels that are no class."""

    hot_CX: np.ndarray  # float32, 1 where the clip has the class
    unknown: Counter[str]  # label that is no class → number of clips


def make_targets(labels_of_clip: Iterable[Iterable[str]], classes: tuple[str, ...]) -> Targets:
    """Targets of the clips, in their order; labels that are no class are counted."""
    labels = [list(one) for one in labels_of_clip]
    position = {name: i for i, name in enumerate(classes)}
    hot_CX = np.zeros((len(labels), len(classes)), dtype=np.float32)
    unknown: Counter[str] = Counter()
    for clip, labels_of_one in enumerate(labels):
        for label in labels_of_one:
            if label in position:
                hot_CX[clip, position[label]] = 1
            else:
                unknown[label] += 1
    return Targets(hot_CX, unknown)


def describe_unknown(unknown: Counter[str]) -> str:
    """The number of unknown labels and the most frequent ones, such as "7 labels: Moo (12), …"."""
    listed = [f"{label} ({n})" for label, n in unknown.most_common(_MAX_LISTED)]
    if len(unknown) > _MAX_LISTED:
        listed.append("…")
    return f"{len(unknown)} label{'s' if len(unknown) != 1 else ''}: {', '.join(listed)}"
