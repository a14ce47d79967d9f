"""The loss of a step: contrastive over the global batch, reconstruction, or both."""

from dataclasses import dataclass

import torch

from flap.model.flap import FlapOutput
from flap.model.loss import contrastive_loss
from flap.training.distributed import gather_rows, get_rank, mean_over_ranks


@dataclass(frozen=True)
class Losses:
    """The losses of equations 1 and 2; None for a loss that is not trained."""

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
        """The losses of the global batch: means over all ranks, detached from the graph."""
        contrastive, reconstruction = (
            None if part is None else mean_over_ranks(part)
            for part in (self.contrastive, self.reconstruction)
        )
        return Losses(contrastive, reconstruction, self.reconstruction_weight)


def global_contrastive_loss(output: FlapOutput) -> torch.Tensor:
    """This rank's share of equation 1: its rows against the rows of all ranks.

    The mean of the shares over ranks is the loss of the global batch. DDP averages the gradients
    of the shares over ranks, and `gather_rows` passes gradients to all ranks, so the average is
    the gradient of that loss.

    Args:
        output: embeddings of this rank, (V · B, E) of audio and (B, E) of text.
    """
    audio_BE, text_BE = output.audio_embeds, output.text_embeds
    assert audio_BE is not None and text_BE is not None and output.logit_scale is not None
    # Order of the gathered audio: view 1 of all ranks, then view 2 of all ranks, …
    clips_BVE = audio_BE.unflatten(0, (-1, len(text_BE))).transpose(0, 1)
    all_clips_GVE = gather_rows(clips_BVE.flatten(1)).unflatten(1, clips_BVE.shape[1:])
    return contrastive_loss(
        audio_BE,
        text_BE,
        output.logit_scale,
        all_audio_GE=all_clips_GVE.transpose(0, 1).flatten(0, 1),
        all_text_GE=gather_rows(text_BE),
        first=get_rank() * len(text_BE),
    )
