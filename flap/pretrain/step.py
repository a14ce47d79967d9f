"""Gradients of one step: losses over the global batch, whatever fits in memory.

Step s trains on global batch s of `PairOrder` with masks drawn from (seed, s); each rank takes
its equal share of both, a micro-batch at a time. Nothing else is random but dropout, and with
feature fusion which clip counts as longer where none is; both are seeded by step, rank and
micro-batch.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property

import pandas as pd
import torch

from flap.core.errors import UserError
from flap.model.flap import FlapModel, FlapOutput
from flap.model.masking import draw_mask
from flap.pretrain.config import PretrainConfig
from flap.pretrain.gradient_cache import CachedContrast, running_statistics_kept
from flap.pretrain.inputs import ModelInputs
from flap.pretrain.objective import Losses, global_contrast
from flap.training.batches import Batch
from flap.training.distributed import Ranks
from flap.training.order import Pair, cut
from flap.training.parallel import Parallel
from flap.training.seeds import seed_of

_NAMED_CLIPS = 5
Towers = Callable[..., FlapOutput]


@dataclass(frozen=True)
class Step:
    """This rank's part of a step."""

    config: PretrainConfig
    parallel: Parallel
    inputs: ModelInputs
    clips: pd.DataFrame
    ranks: Ranks
    total_steps: int

    @property
    def model(self) -> FlapModel:
        return self.parallel.model

    @cached_property
    def parts(self) -> list[slice]:
        """This rank's share of a batch as micro-batches."""
        share = self.config.batch // self.ranks.world_size
        return [slice(*ends) for ends in cut(share, self.config.micro_batch)]

    @property
    def passes(self) -> int:
        """How often `backward` goes through the step's micro-batches."""
        return 2 if len(self.parts) > 1 and self.config.captions != "none" else 1

    def backward(self, step: int, batches: Iterator[Batch]) -> Losses:
        """Add the gradients of step `step` to the parameters'; the losses of the global batch.

        Args:
            batches: the step's micro-batches in order, as often as there are passes.

        Raises:
            UserError: the loss is not finite.
        """
        masks_VSK, seen = self._masks(step), list[_Seen]()

        def forward(towers: Towers, number: int) -> FlapOutput:
            batch = next(batches)
            keep_BK = None if masks_VSK is None else masks_VSK[:, self.parts[number]].flatten(0, 1)
            torch.manual_seed(seed_of(self.config.seed, step, self.ranks.rank, number))
            output = self._forward(towers, batch, keep_BK)
            seen.append(_Seen.of(batch.pairs, output))
            return output

        weight, reconstruction = self.config.reconstruction_weight, list[torch.Tensor]()
        cached = None
        if self.passes == 2:
            with torch.no_grad(), running_statistics_kept(self.model):
                cached = CachedContrast.of([forward(self.model, i) for i in range(len(self.parts))])
        contrastive = None if cached is None else cached.loss
        for number, part in enumerate(self.parts):
            with self.parallel.pass_of(last=number + 1 == len(self.parts)):
                output = forward(self.parallel.towers, number)
                minimised = self._nothing(output)
                if cached is not None:
                    minimised = minimised + cached.surrogate(output, number)
                elif output.text_embeds is not None:
                    contrastive = global_contrast(output)
                    minimised = minimised + contrastive
                if output.reconstruction_loss is not None:
                    of_share = (part.stop - part.start) / self.parts[-1].stop
                    minimised = minimised + weight * of_share * output.reconstruction_loss
                    reconstruction.append(of_share * output.reconstruction_loss.detach())
                minimised.backward()
        total = torch.stack(reconstruction).sum() if reconstruction else None
        losses = Losses(contrastive, total, weight).over_ranks()
        if not losses.total.isfinite():
            raise UserError(self._complaint(step, losses.total.item(), seen))
        return losses

    def _forward(self, towers: Towers, batch: Batch, keep_BK: torch.Tensor | None) -> FlapOutput:
        device = self.ranks.device
        inputs = self.inputs.of(batch.windows, self._captions(batch), keep_BK)
        with torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda"):
            return towers(**inputs)

    def _captions(self, batch: Batch) -> list[str]:
        if self.config.captions == "none":
            return []
        return [self.clips["captions"][pair.clip][pair.caption] for pair in batch.pairs]

    def _masks(self, step: int) -> torch.Tensor | None:
        """This rank's share of the masks of global batch `step`, (V, S, K); None: all is seen."""
        config = self.config
        if step >= self.total_steps - config.unmasked_steps:
            return None
        generator = torch.Generator().manual_seed(seed_of(config.seed, step))
        grid = self.model.config.encoder.grid
        keep_GK = draw_mask(config.mask, grid, config.views * config.batch, generator)
        if keep_GK is None:
            return None
        shares_VSK = keep_GK.unflatten(0, (config.views, -1)).chunk(self.ranks.world_size, dim=1)
        return shares_VSK[self.ranks.rank]

    def _nothing(self, output: FlapOutput) -> torch.Tensor:
        """Zero; of a decoder that has nothing to reconstruct, whose gradients are zero too."""
        if output.reconstruction_loss is None and self.model.audio_decoder is not None:
            return self.parallel.idle(self.model.audio_decoder)
        return torch.zeros((), device=self.ranks.device)

    def _complaint(self, step: int, loss: float, seen: list["_Seen"]) -> str:
        clips = dict.fromkeys(clip for part in seen for clip in part.not_finite())
        names = [self.clips["clip_id"][clip] for clip in clips]
        where = "all embeddings are finite"
        if names:
            more = f" and {len(names) - _NAMED_CLIPS} more" if len(names) > _NAMED_CLIPS else ""
            where = f"not finite are {', '.join(names[:_NAMED_CLIPS])}{more}"
        return (
            f"pretrain: the loss is {loss} at step {step + 1} ({where}); lower "
            "pretrain.learning_rate, set pretrain.max_gradient_norm, or look at the clips"
        )


@dataclass(frozen=True)
class _Seen:
    """A micro-batch's pairs and embeddings, to tell where a loss that is not finite comes from."""

    pairs: list[Pair]
    embeddings: list[torch.Tensor]  # of one row a pair, or V · M rows

    @classmethod
    def of(cls, pairs: list[Pair], output: FlapOutput) -> "_Seen":
        found = (output.audio_embeds, output.text_embeds)
        return cls(pairs, [rows.detach() for rows in found if rows is not None])

    def not_finite(self) -> list[int]:
        """Clips with an embedding that is not finite."""
        rows_BE = [rows.unflatten(0, (-1, len(self.pairs))).sum(0) for rows in self.embeddings]
        bad_B = ~torch.stack([rows.sum(-1).isfinite() for rows in rows_BE]).all(0)
        return [pair.clip for pair, bad in zip(self.pairs, bad_B.tolist(), strict=True) if bad]
