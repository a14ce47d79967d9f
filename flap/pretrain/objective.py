"""What a step minimises: contrast over the global batch, reconstruction, or both."""

from dataclasses import dataclass

import torch

from flap.errors import UserError
from flap.model.flap import FlapOutput
from flap.model.loss import contrastive_loss
from flap.training.distributed import gather_rows, mean_over_ranks


@dataclass(frozen=True)
class Losses:
    """To be minimised by this rank; a part is None where it is not trained."""

    total: torch.Tensor
    contrastive: torch.Tensor | None
    reconstruction: torch.Tensor | None

    def over_ranks(self) -> "Losses":
        """The losses of the global batch, the same on every rank, without gradients."""
        parts = (self.total, self.contrastive, self.reconstruction)
        return Losses(*(None if part is None else mean_over_ranks(part) for part in parts))  # type: ignore[arg-type]

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
    contrastive, reconstruction = None, output.reconstruction_loss
    if output.text_embeds is not None:
        audio_E, text_BE = output.audio_embeds, output.text_embeds
        assert audio_E is not None and output.logit_scale is not None
        contrastive = contrastive_loss(
            _gather_views(audio_E.float(), views=len(audio_E) // len(text_BE)),
            gather_rows(text_BE.float()),
            output.logit_scale,
        )
    if reconstruction is None:
        assert contrastive is not None
        return Losses(contrastive, contrastive, None)
    weighted = reconstruction_weight * reconstruction
    total = weighted if contrastive is None else contrastive + weighted
    return Losses(total, contrastive, reconstruction)


def _gather_views(audio_BE: torch.Tensor, views: int) -> torch.Tensor:
    """Rows of all ranks, (V · B, E) → (V · G, E), view by view as `contrastive_loss` wants them."""
    clips_BVE = audio_BE.unflatten(0, (views, -1)).transpose(0, 1)
    gathered_GVE = gather_rows(clips_BVE.flatten(1)).unflatten(1, (views, -1))
    return gathered_GVE.transpose(0, 1).flatten(0, 1)
