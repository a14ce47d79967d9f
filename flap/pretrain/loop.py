"""The training loop: contrast of visible audio tokens with text over the global batch.

Step s trains on global batch s of `PairOrder` with masks drawn from (seed, s); each rank
takes its equal share of both. Nothing else is random but dropout, and with feature fusion
which clip counts as longer where none is; both are seeded by step and rank, so a run resumed
from a checkpoint goes on as if it had not stopped.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import torch
from torch.nn.parallel import DistributedDataParallel
from tqdm import tqdm
from transformers import PreTrainedTokenizerBase

from flap.errors import UserError
from flap.model.flap import FlapModel, FlapOutput
from flap.model.masking import check_mask, draw_mask
from flap.pretrain.config import PretrainConfig
from flap.pretrain.history import History
from flap.pretrain.inputs import ModelInputs
from flap.pretrain.objective import Losses, losses
from flap.pretrain.validation import validation_loss
from flap.training.batches import Batch, WindowDraw, read_batches
from flap.training.checkpoint import load_checkpoint, save_checkpoint
from flap.training.distributed import Ranks
from flap.training.order import GlobalBatches, PairOrder
from flap.training.schedule import set_learning_rate
from flap.training.seeds import seed_of

CHECKPOINT, HISTORY = "checkpoint.pt", "history.csv"


@dataclass
class Trainer:
    """Everything one rank needs to train `model` on `clips`."""

    config: PretrainConfig
    model: FlapModel
    tokenizer: PreTrainedTokenizerBase
    clips: pd.DataFrame
    validation: pd.DataFrame
    ranks: Ranks

    def __post_init__(self) -> None:
        if self.config.batch % self.ranks.world_size:
            raise UserError(
                f"pretrain.batch {self.config.batch} does not divide among "
                f"{self.ranks.world_size} ranks; choose a multiple"
            )
        hides = self.config.views > 1 or self.config.reconstruction_weight > 0
        grid = self.model.config.encoder.grid
        check_mask(self.config.mask, grid, "pretrain.mask", must_hide=hides)
        shards = pd.factorize(self.clips["path"])[0]
        # Without captions each clip still is one item of an epoch.
        counts = self.clips["captions"].map(len).clip(lower=1).to_numpy()
        self.order = PairOrder(shards, counts, self.config.seed, self.config.shuffle_shards)
        self.total_steps = self.config.epochs * self.order.pairs_per_epoch // self.config.batch
        if not self.total_steps:
            raise UserError(
                f"pretrain: {self.order.pairs_per_epoch} pairs an epoch make no batch of "
                f"{self.config.batch}; lower pretrain.batch or raise pretrain.epochs"
            )
        self._prepare_model()
        self.inputs = ModelInputs(self.tokenizer, self.model.config, self.ranks.device)
        self.optimizer = torch.optim.AdamW(
            [parameter for parameter in self.model.parameters() if parameter.requires_grad],
            lr=self.config.learning_rate,
            betas=self.config.betas,
            weight_decay=self.config.weight_decay,
        )

    def _prepare_model(self) -> None:
        config, model = self.config, self.model
        model.to(self.ranks.device)  # type: ignore[arg-type]
        if config.captions == "none":
            for part in (model.text_encoder, model.text_head, model.audio_head):
                part.requires_grad_(False)
            model.logit_scale.requires_grad_(False)
        if config.gradient_checkpointing:
            model.gradient_checkpointing_enable({"use_reentrant": False})
        if config.compile:
            model.audio_encoder.blocks.compile()
            if model.audio_decoder is not None:
                model.audio_decoder.blocks.compile()

    def run(self, folder: Path) -> None:
        """Train to the end, resuming from what stands in `folder`; history and state go there."""
        checkpoint = folder / CHECKPOINT
        done = load_checkpoint(checkpoint, self.model, self.optimizer)
        history = History.resume(folder / HISTORY, done) if self.ranks.is_first else None
        steps = range(done, self.total_steps)
        towers = self._towers()
        bar = tqdm(
            zip(steps, self._batches(steps), strict=True),
            "pretrain",
            initial=done,
            total=self.total_steps,
            unit="step",
            disable=not self.ranks.is_first,
        )
        for step, batch in bar:
            found = self._step(towers, step, batch)
            if history is None:
                continue
            bar.set_postfix(loss=f"{found.total.item():.3f}")
            last = step + 1 == self.total_steps
            evaluate = last or (step + 1) % self.config.evaluate_every == 0
            history.add_step(
                step=step + 1,
                epoch=(step + 1) * self.config.batch / self.order.pairs_per_epoch,
                losses=found,
                learning_rate=self.optimizer.param_groups[0]["lr"],
                logit_scale=self.model.logit_scale.exp().item(),
                val_loss=self._validation_loss() if evaluate else None,
            )
            if last or (step + 1) % self.config.checkpoint_every == 0:
                history.flush()
                save_checkpoint(checkpoint, step + 1, self.model, self.optimizer)

    def _towers(self) -> Callable[..., FlapOutput]:
        """The model, under DDP where there are several ranks."""
        self.model.train()
        if self.ranks.world_size == 1:
            return self.model
        return DistributedDataParallel(
            self.model,
            device_ids=[self.ranks.device] if self.ranks.device.type == "cuda" else None,
        )

    def _batches(self, steps: range) -> Iterable[Batch]:
        share = GlobalBatches(
            self.order,
            self.config.batch,
            steps,
            rank=self.ranks.rank,
            world_size=self.ranks.world_size,
        )
        draw = WindowDraw(
            clip_frames=self.model.config.encoder.clip_frames,
            fusion=self.model.config.fusion,
            stripes=self.config.spec_augment,
            seed=self.config.seed,
        )
        return read_batches(
            self.clips,
            share,
            draw,
            workers=self.config.loader_workers,
        )

    def _step(self, towers: Callable[..., FlapOutput], step: int, batch: Batch) -> Losses:
        """One optimiser step on this rank's share of global batch `step`; the global losses."""
        config, device = self.config, self.ranks.device
        torch.manual_seed(seed_of(config.seed, step, self.ranks.rank))
        set_learning_rate(
            self.optimizer, config.learning_rate, step, self.total_steps, config.warmup_steps
        )
        captions = self._captions(batch)
        with torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda"):
            output = towers(**self.inputs.of(batch.windows, captions, self._masks(step)))
        found = losses(output, config.reconstruction_weight)
        found.check_finite(step)
        self.optimizer.zero_grad(set_to_none=True)
        found.total.backward()
        self.optimizer.step()
        self.model.clamp_logit_scale()
        return found.over_ranks()

    def _captions(self, batch: Batch) -> list[str]:
        if self.config.captions == "none":
            return []
        return [self.clips["captions"][pair.clip][pair.caption] for pair in batch.pairs]

    def _masks(self, step: int) -> torch.Tensor | None:
        """This rank's share of the masks of global batch `step`, view after view."""
        config = self.config
        generator = torch.Generator().manual_seed(seed_of(config.seed, step))
        grid = self.model.config.encoder.grid
        keep_GK = draw_mask(config.mask, grid, config.views * config.batch, generator)
        if keep_GK is None:
            return None
        share_VBK = keep_GK.unflatten(0, (config.views, -1)).chunk(self.ranks.world_size, dim=1)
        return share_VBK[self.ranks.rank].flatten(0, 1)

    def _validation_loss(self) -> float:
        mask = self.config.mask if self.config.captions == "none" else None
        return validation_loss(self.model, self.inputs, self.validation, mask)
