"""What a step minimises: contrast over the global batch, reconstruction, or both."""

from dataclasses import dataclass

import torch

from flap.errors import UserError
from flap.model.flap import FlapOutput
from flap.model.loss import contrastive_loss
from flap.training.distributed import gather_rows, mean_over_ranks


@dataclass(frozen=True)
class Losses:
    """Equations 1 and 2; a part is None where it is not trained."""

    contrastive: torch.Tensor | None  # of the global batch on every rank
    reconstruction: torch.Tensor | None  # of this rank's clips
    reconstruction_weight: float

    @property
    def total(self) -> torch.Tensor:
        """What this rank minimises."""
        if self.reconstruction is None:
            assert self.contrastive is not None
            return self.contrastive
        weighted = self.reconstruction_weight * self.reconstruction
        return weighted if self.contrastive is None else self.contrastive + weighted

    def over_ranks(self) -> "Losses":
        """The losses of the global batch, the same on every rank, without gradients."""
        contrastive, reconstruction = self.contrastive, self.reconstruction
        return Losses(
            None if contrastive is None else contrastive.detach(),
            None if reconstruction is None else mean_over_ranks(reconstruction),
            self.reconstruction_weight,
        )

    def check_finite(self, step: int) -> None:
        if not torch.isfinite(self.total):
            raise UserError(
                f"pretrain: loss is {self.total.item()} at step {step}; lower learning_rate"
            )


def losses(output: FlapOutput, reconstruction_weight: float) -> Losses:
    """Equation 1 plus `reconstruction_weight` times equation 2, of this rank's `output`.

    Each rank's reconstruction is a mean over equally many patches, so DDP's mean over ranks
    makes it that of the global batch.
    """
    contrastive = None
    if output.text_embeds is not None:
        audio_E, text_BE = output.audio_embeds, output.text_embeds
        assert audio_E is not None and output.logit_scale is not None
        contrastive = contrastive_loss(
            _gather_views(audio_E.float(), views=len(audio_E) // len(text_BE)),
            gather_rows(text_BE.float()),
            output.logit_scale,
        )
    return Losses(contrastive, output.reconstruction_loss, reconstruction_weight)


def _gather_views(audio_BE: torch.Tensor, views: int) -> torch.Tensor:
    """Rows of all ranks, (V · B, E) → (V · G, E), view by view as `contrastive_loss` wants them."""
    clips_BVE = audio_BE.unflatten(0, (views, -1)).transpose(0, 1)
    gathered_GVE = gather_rows(clips_BVE.flatten(1)).unflatten(1, (views, -1))
    return gathered_GVE.transpose(0, 1).flatten(0, 1)
