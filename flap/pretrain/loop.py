"""The training loop: steps, evaluations, checkpoints, and what the history says of them.

Everything but the weights is a function of the step: data order, masks, seeds and rate. So a run
resumed from a checkpoint goes on as if it had not stopped.
"""

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import torch
from torch.optim.swa_utils import AveragedModel
from tqdm import tqdm
from transformers import PreTrainedTokenizerBase

from flap.core.errors import UserError
from flap.model.flap import FlapModel
from flap.model.masking import check_mask
from flap.pretrain.config import PretrainConfig
from flap.pretrain.history import History, Row
from flap.pretrain.inputs import ModelInputs
from flap.pretrain.objective import Losses
from flap.pretrain.step import Step
from flap.pretrain.step_flops import StepFlops
from flap.pretrain.validation import NOT_VALIDATED, Validation, validate, validate_reconstruction
from flap.training.batches import Batch, WindowDraw, read_batches
from flap.training.checkpoint import Checkpoints
from flap.training.distributed import Ranks
from flap.training.meter import Meter
from flap.training.order import MicroBatches, PairOrder
from flap.training.schedule import set_learning_rate
from flap.training.sharding import moving_average, parallel_from_environment, parameter_groups

CHECKPOINTS, HISTORY = "checkpoints", "history.csv"


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
        config = self.config
        if config.batch % self.ranks.world_size:
            raise UserError(
                f"pretrain.batch {config.batch} does not divide among "
                f"{self.ranks.world_size} ranks; choose a multiple"
            )
        hides = config.views > 1 or config.reconstruction_weight > 0
        check_mask(config.mask, self.model.config.encoder.grid, "pretrain.mask", must_hide=hides)
        # Without captions each clip still is one item of an epoch.
        self.order = PairOrder(
            pd.factorize(self.clips["path"])[0],
            self.clips["captions"].map(len).clip(lower=1).to_numpy(),
            seed=config.seed,
            window=config.shuffle_shards,
            batch=config.batch,
            streams=config.streams,
        )
        self.total_steps = config.epochs * self.order.pairs_per_epoch // config.batch
        if not self.total_steps:
            raise UserError(
                f"pretrain: {self.order.pairs_per_epoch} pairs an epoch make no batch of "
                f"{config.batch}; lower pretrain.batch or raise pretrain.epochs"
            )
        self._prepare_model()
        self.average = None
        if config.ema_decay is not None:
            self.average = AveragedModel(self.model, multi_avg_fn=moving_average(config.ema_decay))
        average = None if self.average is None else self.trained
        self.parallel = parallel_from_environment(self.model, average, self.ranks)
        self.inputs = ModelInputs(self.tokenizer, self.model.config, self.ranks.device)
        self.step = Step(
            config,
            self.parallel,
            self.inputs,
            self.clips,
            self.ranks,
            self.total_steps,
        )
        self.optimizer = torch.optim.AdamW(
            parameter_groups(self.model),
            lr=config.learning_rate,
            betas=config.adam.betas,
            eps=config.adam.eps,
            weight_decay=config.adam.weight_decay,
        )

    @property
    def trained(self) -> FlapModel:
        """What is evaluated and kept: the average of the weights where there is one."""
        return self.model if self.average is None else self.average.module  # type: ignore[return-value]

    def run(self, folder: Path, tell: Callable[[Row], None] | None = None) -> None:
        """Train to the end, resuming from what stands in `folder`; history and state go there.

        Afterwards `whole` gives the model to keep. `tell` is called with each row of the history.
        """
        config, keeps_best = self.config, self.config.keep == "best"
        state = (self.model, self.optimizer)
        with Checkpoints(folder / CHECKPOINTS, *state, ema=self.average) as checkpoints:
            done = checkpoints.load().step
            history = History.resume(folder / HISTORY, done, tell)
            meter = Meter(self.ranks.device, StepFlops(self.model).take)
            batches = meter.waiting_for(iter(self.batches(range(done, self.total_steps))))
            bar = tqdm(
                range(done, self.total_steps),
                "pretrain",
                initial=done,
                total=self.total_steps,
                unit="step",
                disable=not self.ranks.is_first,
            )
            for step in bar:
                meter.start()
                losses, gradient_norm = self.update(step, batches)
                total = losses.total.item()  # waits for the device
                reading = meter.stop(config.batch)
                bar.set_postfix(loss=f"{total:.3f}", pairs_s=f"{reading.pairs_per_second:.0f}")
                is_last = step + 1 == self.total_steps
                is_evaluated = is_last or (step + 1) % config.evaluate_every == 0
                found = self._validate() if is_evaluated else NOT_VALIDATED
                history.add(
                    step=step + 1,
                    epoch=(step + 1) * config.batch / self.order.pairs_per_epoch,
                    loss=total,
                    contrastive_loss=losses.contrastive,
                    reconstruction_loss=losses.reconstruction,
                    learning_rate=self.optimizer.param_groups[0]["lr"],
                    logit_scale=self.model.logit_scale.exp().item(),
                    gradient_norm=gradient_norm,
                    val_loss=found.loss,
                    val_recall_at_10=found.recall_at_10,
                    **reading._asdict(),
                )
                is_due = is_last or (step + 1) % config.checkpoint_every == 0
                if is_due or (is_evaluated and keeps_best):
                    if self.ranks.is_first:
                        history.flush()
                    checkpoints.save(step + 1, score=found.recall_at_10)
            if keeps_best:
                checkpoints.wait()
                checkpoints.load(checkpoints.folder.best())
        self.trained.eval()  # type: ignore[no-untyped-call]

    def update(self, step: int, batches: Iterator[Batch]) -> tuple[Losses, torch.Tensor]:
        """One step of the optimiser; the losses of the global batch and its gradient's norm."""
        config = self.config
        set_learning_rate(
            self.optimizer, config.learning_rate, step, self.total_steps, config.warmup_steps
        )
        self.optimizer.zero_grad(set_to_none=True)
        losses = self.step.backward(step, batches)
        gradient_norm = self.parallel.clip(config.max_gradient_norm or math.inf)
        self.optimizer.step()
        self.model.clamp_logit_scale()
        if self.average is not None:
            self.average.update_parameters(self.model)
        return losses, gradient_norm

    def whole(self) -> FlapModel:
        """After `run` the model to keep, whole on the first rank; every rank calls this."""
        return self.parallel.whole(self.trained)

    def _validate(self) -> Validation:
        if not self.parallel.evaluates:
            return NOT_VALIDATED
        if self.config.captions == "none":
            mask = self.config.mask
            return validate_reconstruction(self.trained, self.inputs, self.validation, mask)
        return validate(self.trained, self.inputs, self.validation)

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
        model.train()

    def batches(self, steps: range) -> Iterable[Batch]:
        """This rank's micro-batches of these steps, read ahead."""
        config, encoder = self.config, self.model.config.encoder
        micro_batches = MicroBatches(
            self.order,
            steps,
            rank=self.ranks.rank,
            world_size=self.ranks.world_size,
            micro_batch=config.micro_batch,
            passes=self.step.passes,
        )
        draw = WindowDraw(
            clip_frames=encoder.clip_frames,
            fusion=self.model.config.fusion,
            stripes=config.spec_augment,
            seed=config.seed,
        )
        return read_batches(self.clips, micro_batches, draw, workers=config.loader_workers)
