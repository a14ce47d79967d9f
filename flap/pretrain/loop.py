"""The training loop: contrast of visible audio tokens with text over the global batch.

Step s trains on global batch s of `PairOrder` with masks drawn from (seed, s); each rank
takes its equal share of both. Nothing else is random but dropout, which is seeded by step and
rank, so a run resumed from a checkpoint goes on as if it had not stopped.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import torch
from torch.nn.parallel import DistributedDataParallel
from tqdm import tqdm
from transformers import PreTrainedTokenizerBase

from flap.clips import MelReader
from flap.errors import UserError
from flap.model.flap import Flap
from flap.model.loss import contrastive_loss
from flap.model.masking import draw_mask
from flap.model.text_encoder import tokenize
from flap.pretrain.config import PretrainConfig
from flap.pretrain.history import History
from flap.training.batches import Batch, read_batches
from flap.training.checkpoint import load_checkpoint, save_checkpoint
from flap.training.distributed import Ranks, gather_rows
from flap.training.order import GlobalBatches, PairOrder
from flap.training.schedule import set_learning_rate
from flap.training.seeds import seed_of

CHECKPOINT, HISTORY = "checkpoint.pt", "history.csv"
_VALIDATION_BATCH = 100  # pairs contrasted with each other; fixed, so that losses compare


@dataclass
class Trainer:
    """Everything one rank needs to train `model` on `clips`."""

    config: PretrainConfig
    model: Flap
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
        shards = pd.factorize(self.clips["path"])[0]
        counts = self.clips["captions"].map(len).to_numpy()
        self.order = PairOrder(shards, counts, self.config.seed, self.config.shuffle_shards)
        self.total_steps = self.config.epochs * self.order.pairs_per_epoch // self.config.batch
        if not self.total_steps:
            raise UserError(
                f"pretrain: {self.order.pairs_per_epoch} pairs an epoch make no batch of "
                f"{self.config.batch}; lower pretrain.batch or raise pretrain.epochs"
            )
        self.model.to(self.ranks.device)
        self.optimizer = torch.optim.AdamW(
            self.model.parameters(),
            lr=self.config.learning_rate,
            betas=self.config.betas,
            weight_decay=self.config.weight_decay,
        )

    def run(self, folder: Path) -> None:
        """Train to the end, resuming from what stands in `folder`; history and state go there."""
        checkpoint = folder / CHECKPOINT
        done = load_checkpoint(checkpoint, self.model, self.optimizer)
        history = History.resume(folder / HISTORY, done) if self.ranks.is_first else None
        towers = self._towers()
        steps = range(done, self.total_steps)
        bar = tqdm(
            zip(steps, self._batches(steps), strict=True),
            desc="pretrain",
            initial=done,
            total=self.total_steps,
            unit="step",
            disable=not self.ranks.is_first,
        )
        for step, batch in bar:
            loss = self._step(towers, step, batch)
            if history is None:
                continue
            bar.set_postfix(loss=f"{loss:.3f}")
            last = step + 1 == self.total_steps
            evaluate = last or (step + 1) % self.config.evaluate_every == 0
            history.add(
                step=step + 1,
                epoch=(step + 1) * self.config.batch / self.order.pairs_per_epoch,
                loss=loss,
                learning_rate=self.optimizer.param_groups[0]["lr"],
                logit_scale=self.model.logit_scale.exp().item(),
                val_loss=self.validation_loss() if evaluate else None,
            )
            if last or (step + 1) % self.config.checkpoint_every == 0:
                history.flush()
                save_checkpoint(checkpoint, step + 1, self.model, self.optimizer)

    def _towers(self) -> Callable[..., tuple[torch.Tensor, torch.Tensor]]:
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
        return read_batches(
            self.clips,
            share,
            clip_frames=self.model.audio_encoder.config.clip_frames,
            seed=self.config.seed,
            window_shards=self.config.shuffle_shards,
            workers=self.config.loader_workers,
        )

    def _step(
        self,
        towers: Callable[..., tuple[torch.Tensor, torch.Tensor]],
        step: int,
        batch: Batch,
    ) -> float:
        """One optimiser step on this rank's share of global batch `step`; the global loss."""
        config, device = self.config, self.ranks.device
        torch.manual_seed(seed_of(config.seed, step, self.ranks.rank))
        set_learning_rate(
            self.optimizer, config.learning_rate, step, self.total_steps, config.warmup_steps
        )
        keep_BK = self._masks(step)
        captions = [self.clips["captions"][pair.clip][pair.caption] for pair in batch.pairs]
        tokens = tokenize(self.tokenizer, captions, self.model.model_config.text.max_tokens)
        with torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda"):
            audio_BE, text_BE = towers(
                batch.mel_BTF.to(device),
                {name: tensor.to(device) for name, tensor in tokens.items()},
                None if keep_BK is None else keep_BK.to(device),
            )
        loss = contrastive_loss(
            gather_rows(audio_BE.float()), gather_rows(text_BE.float()), self.model.logit_scale
        )
        if not torch.isfinite(loss):
            raise UserError(f"pretrain: loss is {loss.item()} at step {step}; lower learning_rate")
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        self.optimizer.step()
        self.model.clamp_logit_scale()
        return loss.item()

    def _masks(self, step: int) -> torch.Tensor | None:
        """This rank's share of the masks of global batch `step`."""
        generator = torch.Generator().manual_seed(seed_of(self.config.seed, step))
        grid = self.model.audio_encoder.config.grid
        keep_GK = draw_mask(self.config.mask, grid, self.config.batch, generator)
        if keep_GK is None:
            return None
        return keep_GK.chunk(self.ranks.world_size)[self.ranks.rank]

    @torch.no_grad()
    def validation_loss(self) -> float:
        """Mean loss over whole batches of validation clips with their first captions, unmasked.

        A smaller last batch would be an easier one, so it is left out where there are others.
        """
        self.model.eval()
        frames = self.model.audio_encoder.config.clip_frames
        reader, losses = MelReader(cached_row_groups=1), []
        whole = max(1, len(self.validation) // _VALIDATION_BATCH) * _VALIDATION_BATCH
        for start in range(0, min(whole, len(self.validation)), _VALIDATION_BATCH):
            part = self.validation.iloc[start : start + _VALIDATION_BATCH]
            captions = [captions[0] for captions in part["captions"]]
            tokens = tokenize(self.tokenizer, captions, self.model.model_config.text.max_tokens)
            audio_BE, text_BE = self.model(
                torch.from_numpy(reader.middle_windows(part, frames)).to(self.ranks.device),
                {name: tensor.to(self.ranks.device) for name, tensor in tokens.items()},
            )
            losses.append(contrastive_loss(audio_BE, text_BE, self.model.logit_scale).item())
        self.model.train()
        return sum(losses) / len(losses)
