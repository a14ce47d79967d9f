"""What a step minimises: contrast over the global batch, reconstruction, or both."""

from dataclasses import dataclass

import torch

from flap.model.flap import FlapOutput
from flap.model.loss import contrastive_loss
from flap.training.distributed import gather_rows, mean_over_ranks, own_rank


@dataclass(frozen=True)
class Losses:
    """Equations 1 and 2; a part is None where it is not trained."""

    contrastive: torch.Tensor | None
    reconstruction: torch.Tensor | None
    reconstruction_weight: float

    @property
    def total(self) -> torch.Tensor:
        parts = [] if self.contrastive is None else [self.contrastive]
        if self.reconstruction is not None:
            parts.append(self.reconstruction_weight * self.reconstruction)
        return torch.stack(parts).sum()

    def over_ranks(self) -> "Losses":
        """The losses of the global batch, the same on every rank, without gradients."""
        contrastive, reconstruction = (
            None if part is None else mean_over_ranks(part)
            for part in (self.contrastive, self.reconstruction)
        )
        return Losses(contrastive, reconstruction, self.reconstruction_weight)


def global_contrast(output: FlapOutput) -> torch.Tensor:
    """This rank's share of equation 1 over the global batch: its rows against those of all ranks.

    The mean over ranks is the loss of the whole, and DDP's mean over ranks of the gradients, to
    which every rank's share contributes through `gather_rows`, is the gradient of the whole.
    """
    audio_BE, text_BE = output.audio_embeds, output.text_embeds
    assert audio_BE is not None and text_BE is not None and output.logit_scale is not None
    # All ranks' rows of view 1, then of view 2, …
    clips_BVE = audio_BE.unflatten(0, (-1, len(text_BE))).transpose(0, 1)
    all_clips_GVE = gather_rows(clips_BVE.flatten(1)).unflatten(1, clips_BVE.shape[1:])
    return contrastive_loss(
        audio_BE,
        text_BE,
        output.logit_scale,
        all_audio_GE=all_clips_GVE.transpose(0, 1).flatten(0, 1),
        all_text_GE=gather_rows(text_BE),
        first=own_rank() * len(text_BE),
    )
