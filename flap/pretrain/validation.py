"""The loss on held-out clips, measured the same way each time."""

import pandas as pd
import torch

from flap.clips import MelReader
from flap.model.flap import FlapModel
from flap.model.masking import Mask1D, Mask2D, NoMask, draw_mask
from flap.model.windows import middle_windows
from flap.pretrain.inputs import ModelInputs

_BATCH = 100  # pairs contrasted with each other; fixed, so that losses compare


@torch.no_grad()
def validation_loss(
    model: FlapModel,
    inputs: ModelInputs,
    clips: pd.DataFrame,
    reconstructed: NoMask | Mask1D | Mask2D | None,
) -> float:
    """Mean loss over whole batches of clips: contrast with their first captions, unmasked, or
    reconstruction under masks that are the same each time.

    A smaller last batch would be an easier one, so it is left out where there are others.

    Args:
        reconstructed: the mask, where reconstruction alone is trained.
    """
    model.eval()  # type: ignore[no-untyped-call]
    encoder, reader, found = model.config.encoder, MelReader(), []
    whole = max(1, len(clips) // _BATCH) * _BATCH
    for start in range(0, min(whole, len(clips)), _BATCH):
        part = clips.iloc[start : start + _BATCH]
        windows = middle_windows(reader.read_all(part), encoder.clip_frames, model.config.fusion)
        if reconstructed is None:
            captions = [captions[0] for captions in part["captions"]]
            loss = model(**inputs.of(windows, captions, None), return_loss=True).loss
        else:
            generator = torch.Generator().manual_seed(start)
            keep_BK = draw_mask(reconstructed, encoder.grid, len(part), generator)
            loss = model(**inputs.of(windows, [], keep_BK)).reconstruction_loss
        found.append(loss.item())
    model.train()
    return sum(found) / len(found)
