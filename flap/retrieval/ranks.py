"""Embeddings → the rank of the best right answer to each query, by counting.

The protocol of LS-CLAP: every caption is a query over all clips; every clip is a query over
all captions, where the best placed of its own captions counts. A wrong answer with exactly
the right answer's score counts as placed before it, so equal scores earn nothing.

Letters: Q queries, C clips, M captions, E width of the shared embedding.
"""

from dataclasses import dataclass

import numpy as np

_BLOCK = 1024  # queries at a time: memory stays flat in their number


@dataclass(frozen=True)
class Ranks:
    """Per query: `rank` (1 = first) and the number of wrong answers tied with the right one."""

    rank: np.ndarray
    ties: np.ndarray


def text_to_audio_ranks(
    text_ME: np.ndarray, audio_CE: np.ndarray, clip_of_caption_M: np.ndarray
) -> Ranks:
    """Rank of each caption's own clip among all clips.

    Raises:
        ValueError: an embedding is not finite.
    """
    _check_finite(text_ME, audio_CE)
    blocks = []
    for start in range(0, len(text_ME), _BLOCK):
        scores_QC = text_ME[start : start + _BLOCK] @ audio_CE.T
        right_QC = clip_of_caption_M[start : start + _BLOCK, None] == np.arange(len(audio_CE))
        blocks.append(_count(scores_QC, right_QC))
    return _join(blocks)


def audio_to_text_ranks(
    audio_CE: np.ndarray, text_ME: np.ndarray, clip_of_caption_M: np.ndarray
) -> Ranks:
    """Rank of the best of each clip's own captions among all captions.

    Raises:
        ValueError: an embedding is not finite, or a clip has no caption.
    """
    _check_finite(text_ME, audio_CE)
    blocks = []
    for start in range(0, len(audio_CE), _BLOCK):
        scores_QM = audio_CE[start : start + _BLOCK] @ text_ME.T
        clips_Q = np.arange(start, start + len(scores_QM))
        right_QM = clips_Q[:, None] == clip_of_caption_M[None, :]
        if not right_QM.any(axis=1).all():
            raise ValueError("a clip has no caption among the candidates")
        blocks.append(_count(scores_QM, right_QM))
    return _join(blocks)


def _count(scores_QX: np.ndarray, right_QX: np.ndarray) -> Ranks:
    """Ranks among X candidates, of which one or more are right."""
    best_Q1 = np.where(right_QX, scores_QX, -np.inf).max(axis=1, keepdims=True)
    higher_Q = (~right_QX & (scores_QX > best_Q1)).sum(axis=1)
    ties_Q = (~right_QX & (scores_QX == best_Q1)).sum(axis=1)
    return Ranks(1 + higher_Q + ties_Q, ties_Q)


def _join(blocks: list[Ranks]) -> Ranks:
    return Ranks(
        np.concatenate([block.rank for block in blocks]),
        np.concatenate([block.ties for block in blocks]),
    )


def _check_finite(*embeddings: np.ndarray) -> None:
    if not all(np.isfinite(embedding).all() for embedding in embeddings):
        raise ValueError("embeddings hold NaN or infinity")
