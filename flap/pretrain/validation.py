"""What a model makes of held-out clips, measured the same way each time."""

import math
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from scipy.sparse import csr_array

from flap.mels.reader import MelReader
from flap.model.flap import FlapModel
from flap.model.loss import contrastive_loss
from flap.model.masking import Mask1D, Mask2D, NoMask, draw_mask
from flap.model.saved import SavedFlap
from flap.model.windows import middle_windows
from flap.pretrain.inputs import ModelInputs
from flap.retrieval.embed import FlapEmbedder, embed_captions, embed_clips
from flap.retrieval.positives import own_captions
from flap.retrieval.ranks import rank_right_answers

_BATCH = 100  # pairs contrasted with each other; fixed, so that losses compare
_RECALL_AT = 10


@dataclass(frozen=True)
class Validation:
    """Both of whole windows, unmasked; where reconstruction alone is trained, its loss alone."""

    loss: float
    recall_at_10: float  # mean of both directions, over all clips and their captions


NOT_VALIDATED = Validation(math.nan, math.nan)


def validate(model: FlapModel, inputs: ModelInputs, clips: pd.DataFrame) -> Validation:
    """Contrast and retrieval on the clips of the split `val`."""
    model.eval()  # type: ignore[no-untyped-call]
    embedder = FlapEmbedder(SavedFlap(model, inputs.tokenizer), inputs.device)
    captions = [caption for own in clips["captions"] for caption in own]
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
        for part in _whole_batches(len(clips))
    ]
    to_audio = rank_right_answers(text_ME, audio_CE, csr_array(right_CM.T))
    to_text = rank_right_answers(audio_CE, text_ME, right_CM)
    recalls = [(ranks.rank_Q <= _RECALL_AT).mean() for ranks in (to_audio, to_text)]
    return Validation(float(np.mean(losses)), float(np.mean(recalls)))


@torch.no_grad()
def validate_reconstruction(
    model: FlapModel,
    inputs: ModelInputs,
    clips: pd.DataFrame,
    mask: NoMask | Mask1D | Mask2D,
) -> Validation:
    """Reconstruction under masks that are the same each time."""
    model.eval()  # type: ignore[no-untyped-call]
    encoder, reader, losses = model.config.encoder, MelReader(), []
    for part in _whole_batches(len(clips)):
        mels = reader.read_all(clips.iloc[part])
        windows = middle_windows(mels, encoder.clip_frames, model.config.fusion)
        generator = torch.Generator().manual_seed(part.start)
        keep_BK = draw_mask(mask, encoder.grid, len(windows.mel_BCTF), generator)
        losses.append(model(**inputs.of(windows, [], keep_BK)).reconstruction_loss.item())
    model.train()
    return Validation(float(np.mean(losses)), math.nan)


def _whole_batches(clips: int) -> list[slice]:
    """A smaller last batch would be an easier one, so it is left out where there are others."""
    whole = max(1, clips // _BATCH) * _BATCH
    return [
        slice(start, min(start + _BATCH, clips)) for start in range(0, min(whole, clips), _BATCH)
    ]
