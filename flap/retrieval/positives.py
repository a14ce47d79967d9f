"""Which answers are right: a clip's own captions, or those of clips with a caption in common too.

Letters: C clips, M captions, T distinct captions.
"""

from collections.abc import Sequence

import numpy as np
from scipy.sparse import csr_array

from flap.core.text import normalised_caption


def own_captions(captions: Sequence[Sequence[str]]) -> csr_array:
    """(C, M) boolean: clips against their captions, one clip's after another's.

    Args:
        captions: of each clip.
    """
    counts = [len(own) for own in captions]
    starts = np.concatenate([[0], np.cumsum(counts)])
    every = np.arange(starts[-1])
    return csr_array((np.ones(len(every), bool), every, starts), shape=(len(counts), len(every)))


def shared_captions(captions: Sequence[Sequence[str]]) -> csr_array:
    """(C, M) boolean as `own_captions`, clips that share a caption having each other's as well.

    Captions are the same whatever their case, their spaces, and the mark at their end.
    """
    own_CM = own_captions(captions)
    texts = [normalised_caption(caption) for own in captions for caption in own]
    number_M = np.unique(texts, return_inverse=True)[1]
    says_MT = csr_array((np.ones(len(texts), int), (np.arange(len(texts)), number_M)))
    says_CT = own_CM.astype(int) @ says_MT
    related_CM = (says_CT @ says_CT.T) @ own_CM.astype(int)
    related_CM.sort_indices()
    return related_CM.astype(bool)
