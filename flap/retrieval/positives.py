"""Right answers: a clip's own captions, or also those of clips that share a caption with it.

Letters: C clips, M captions, T distinct captions.
"""

from collections.abc import Sequence

import numpy as np
from scipy.sparse import csr_array

from flap.core.text import normalised_caption


def own_captions(captions: Sequence[Sequence[str]]) -> csr_array:
    """(C, M) boolean: true where a caption is the clip's own.

    Args:
        captions: the captions of each clip; columns of the result follow them clip by clip.
    """
    counts = [len(own) for own in captions]
    starts = np.concatenate([[0], np.cumsum(counts)])
    column_M = np.arange(starts[-1])
    shape = (len(counts), len(column_M))
    return csr_array((np.ones(len(column_M), bool), column_M, starts), shape=shape)


def shared_captions(captions: Sequence[Sequence[str]]) -> csr_array:
    """(C, M) boolean: as `own_captions`, and true for captions of clips that share a caption.

    Captions count as equal if they differ only in case, white space and the mark at their end.
    """
    own_CM = own_captions(captions)
    texts = [normalised_caption(caption) for own in captions for caption in own]
    text_M = np.unique(texts, return_inverse=True)[1]
    has_MT = csr_array((np.ones(len(texts), int), (np.arange(len(texts)), text_M)))
    has_CT = own_CM.astype(int) @ has_MT
    related_CM = (has_CT @ has_CT.T) @ own_CM.astype(int)
    related_CM.sort_indices()
    return related_CM.astype(bool)
