"""The gradients of one training step, accumulated over micro-batches.

Step s trains on global batch s of `PairOrder`, with masks drawn from (seed, s). Each rank takes an
equal share of both and splits it into micro-batches. The other random choices are dropout and, with
feature fusion, the clip that is treated as longer if the batch has no longer clip. Their seed
follows from step, rank and micro-batch.
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
from flap.pretrain.gradient_cache import CachedContrast, batch_norm_statistics_frozen
from flap.pretrain.inputs import InputBuilder
from flap.pretrain.objective import Losses, global_contrastive_loss
from flap.training.batches import Batch
from flap.training.distributed import World
from flap.training.order import Pair, micro_batch_bounds
from flap.training.parallel import Parallel
from flap.training.seeds import derive_seed

_MAX_NAMED_CLIPS = 5
Forward = Callable[..., FlapOutput]


@dataclass(frozen=True)
class Step:
    """Computes this rank's part of the gradients of a step."""

    config: PretrainConfig
    parallel: Parallel
    inputs: InputBuilder
    clips: pd.DataFrame  # training clips: clip_id, captions
    world: World
    total_steps: int

    @property
    def model(self) -> FlapModel:
        return self.parallel.model

    @cached_property
    def micro_batches(self) -> list[slice]:
        """This rank's share of a batch, as slices of the share."""
        share = self.config.batch // self.world.world_size
        return [slice(*bounds) for bounds in micro_batch_bounds(share, self.config.micro_batch)]

    @property
    def forward_passes(self) -> int:
        """How often `backward` goes through the micro-batches: twice with GradCache."""
        return 2 if len(self.micro_batches) > 1 and self.config.captions != "none" else 1

    def backward(self, step: int, batches: Iterator[Batch]) -> Losses:
        """Add the gradients of step `step` to the parameters' `grad`.

        Args:
            batches: the micro-batches of the step in order, repeated for each forward pass.

        Returns:
            The losses of the global batch.

        Raises:
            UserError: the loss is not finite.
        """
        masks_VSK, seen = self._masks(step), list[_Embedded]()
        numbers = range(len(self.micro_batches))

        def forward(model: Forward, number: int) -> FlapOutput:
            batch, keep_BK = next(batches), None
            if masks_VSK is not None:
                keep_BK = masks_VSK[:, self.micro_batches[number]].flatten(0, 1)
            torch.manual_seed(derive_seed(self.config.seed, step, self.world.rank, number))
            output = self._forward(model, batch, keep_BK)
            seen.append(_Embedded.from_output(batch.pairs, output))
            return output

        weight, reconstruction = self.config.reconstruction_weight, list[torch.Tensor]()
        cached = None
        if self.forward_passes == 2:
            with torch.no_grad(), batch_norm_statistics_frozen(self.model):
                cached = CachedContrast.from_outputs([forward(self.model, n) for n in numbers])
        contrastive = None if cached is None else cached.loss
        for number, rows in enumerate(self.micro_batches):
            with self.parallel.accumulate(last=number == numbers[-1]):
                output = forward(self.parallel.wrapped_model, number)
                loss = self._zero_loss(output)
                if cached is not None:
                    loss = loss + cached.surrogate(output, number)
                elif output.text_embeds is not None:
                    contrastive = global_contrastive_loss(output)
                    loss = loss + contrastive
                if output.reconstruction_loss is not None:
                    fraction = (rows.stop - rows.start) / self.micro_batches[-1].stop
                    loss = loss + weight * fraction * output.reconstruction_loss
                    reconstruction.append(fraction * output.reconstruction_loss.detach())
                loss.backward()
        total = torch.stack(reconstruction).sum() if reconstruction else None
        losses = Losses(contrastive, total, weight).over_ranks()
        if not losses.total.isfinite():
            raise UserError(self._non_finite_message(step, losses.total.item(), seen))
        return losses

    def _forward(self, model: Forward, batch: Batch, keep_BK: torch.Tensor | None) -> FlapOutput:
        device = self.world.device
        inputs = self.inputs.build(batch.windows, self._captions(batch), keep_BK)
        with torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda"):
            return model(**inputs)

    def _captions(self, batch: Batch) -> list[str]:
        if self.config.captions == "none":
            return []
        return [self.clips["captions"][pair.clip][pair.caption] for pair in batch.pairs]

    def _masks(self, step: int) -> torch.Tensor | None:
        """This rank's share of the masks of step `step`, (V, S, K); None without masking."""
        config = self.config
        if step >= self.total_steps - config.unmasked_steps:
            return None
        generator = torch.Generator().manual_seed(derive_seed(config.seed, step))
        grid = self.model.config.encoder.grid
        keep_GK = draw_mask(config.mask, grid, config.views * config.batch, generator)
        if keep_GK is None:
            return None
        shares_VSK = keep_GK.unflatten(0, (config.views, -1)).chunk(self.world.world_size, dim=1)
        return shares_VSK[self.world.rank]

    def _zero_loss(self, output: FlapOutput) -> torch.Tensor:
        """The zero to start a loss from; it includes the decoder if the output does not use it."""
        if output.reconstruction_loss is None and self.model.audio_decoder is not None:
            return self.parallel.zero_loss(self.model.audio_decoder)
        return torch.zeros((), device=self.world.device)

    def _non_finite_message(self, step: int, loss: float, seen: list["_Embedded"]) -> str:
        clips = dict.fromkeys(clip for embedded in seen for clip in embedded.non_finite_clips())
        names = [self.clips["clip_id"][clip] for clip in clips]
        where = "all embeddings are finite"
        if names:
            more = len(names) - _MAX_NAMED_CLIPS
            where = f"not finite are {', '.join(names[:_MAX_NAMED_CLIPS])}"
            where += f" and {more} more" if more > 0 else ""
        return (
            f"pretrain: the loss is {loss} at step {step + 1} ({where}); lower "
            "pretrain.learning_rate, set pretrain.max_gradient_norm, or check these clips"
        )


@dataclass(frozen=True)
class _Embedded:
    """Pairs and embeddings of a micro-batch, kept to name the clips of a non-finite loss."""

    pairs: list[Pair]
    embeddings: list[torch.Tensor]  # audio (V · M, E) and text (M, E), as far as there are any

    @classmethod
    def from_output(cls, pairs: list[Pair], output: FlapOutput) -> "_Embedded":
        found = (output.audio_embeds, output.text_embeds)
        return cls(pairs, [rows.detach() for rows in found if rows is not None])

    def non_finite_clips(self) -> list[int]:
        """Clips with an embedding that is not finite."""
        rows_BE = [rows.unflatten(0, (-1, len(self.pairs))).sum(0) for rows in self.embeddings]
        bad_B = ~torch.stack([rows.sum(-1).isfinite() for rows in rows_BE]).all(0)
        return [pair.clip for pair, bad in zip(self.pairs, bad_B.tolist(), strict=True) if bad]
