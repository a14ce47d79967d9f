"""Validation loss and recall on the clips of the split `val`."""

import math
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from scipy.sparse import csr_array

from flap.mels.reader import MelReader
from flap.model.config import Mask1D, Mask2D, NoMask
from flap.model.flap import FlapModel
from flap.model.loss import contrastive_loss
from flap.model.masking import draw_mask
from flap.model.saved import SavedFlap
from flap.model.windows import middle_windows
from flap.pretrain.inputs import InputBuilder
from flap.retrieval.embed import FlapEmbedder, embed_captions, embed_clips
from flap.retrieval.positives import own_captions
from flap.retrieval.ranks import rank_right_answers

_BATCH = 100  # pairs; fixed, since the contrastive loss depends on the size of the batch
_RECALL_AT = 10


@dataclass(frozen=True)
class Validation:
    """Scores of a model on held-out clips."""

    loss: float  # contrastive, without a mask; with captions: none, of reconstruction
    recall_at_10: float  # mean of both directions over all clips and captions; NaN without


NOT_VALIDATED = Validation(math.nan, math.nan)


def validate(model: FlapModel, inputs: InputBuilder, clips: pd.DataFrame) -> Validation:
    """Contrastive loss and retrieval on `clips`, without masks."""
    model.eval()  # type: ignore[no-untyped-call]
    embedder = FlapEmbedder(SavedFlap(model, inputs.tokenizer), inputs.device)
    captions = [caption for of_clip in clips["captions"] for caption in of_clip]
    right_CM = own_captions(list(clips["captions"]))
    audio_CE = embed_clips(embedder, clips, _BATCH, progress=False)
    text_ME = embed_captions(embedder, captions, _BATCH, progress=False)
    model.train()
    first_M = right_CM.indptr[:-1]
    losses = [
        contrastive_loss(
            torch.from_numpy(audio_CE[part]),
            torch.from_numpy(text_ME[first_M[part]]),
            model.logit_scale.detach().cpu(),
        ).item()
        for part in _full_batches(len(clips))
    ]
    to_audio = rank_right_answers(text_ME, audio_CE, csr_array(right_CM.T))
    to_text = rank_right_answers(audio_CE, text_ME, right_CM)
    recalls = [(ranks.rank_Q <= _RECALL_AT).mean() for ranks in (to_audio, to_text)]
    return Validation(float(np.mean(losses)), float(np.mean(recalls)))


@torch.no_grad()
def validate_reconstruction(
    model: FlapModel,
    inputs: InputBuilder,
    clips: pd.DataFrame,
    mask: NoMask | Mask1D | Mask2D,
) -> Validation:
    """Reconstruction loss on `clips`, under masks that are the same at each call."""
    model.eval()  # type: ignore[no-untyped-call]
    encoder, reader, losses = model.config.encoder, MelReader(), []
    for part in _full_batches(len(clips)):
        mels = reader.read_all(clips.iloc[part])
        windows = middle_windows(mels, encoder.clip_frames, model.config.fusion)
        generator = torch.Generator().manual_seed(part.start)
        keep_BK = draw_mask(mask, encoder.grid, len(windows.mel_BCTF), generator)
        losses.append(model(**inputs.build(windows, [], keep_BK)).reconstruction_loss.item())
    model.train()
    return Validation(float(np.mean(losses)), math.nan)


def _full_batches(clips: int) -> list[slice]:
    """Batches of `_BATCH` clips.

    A smaller last batch is dropped, since it has an easier contrastive loss; if it is the only
    batch, it is kept.
    """
    full = max(1, clips // _BATCH) * _BATCH
    return [
        slice(start, min(start + _BATCH, clips)) for start in range(0, min(full, clips), _BATCH)
    ]
