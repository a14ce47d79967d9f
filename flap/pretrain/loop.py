"""The training loop: steps, evaluations, checkpoints and the history.

Data order, masks, seeds and learning rate are functions of the step. So a run that resumes from a
checkpoint gives the same result as a run that was never stopped.
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
from flap.pretrain.inputs import InputBuilder
from flap.pretrain.objective import Losses
from flap.pretrain.step import Step
from flap.pretrain.step_flops import StepFlops
from flap.pretrain.validation import NOT_VALIDATED, Validation, validate, validate_reconstruction
from flap.training.batches import Batch, WindowSampler, read_batches
from flap.training.checkpoint import Checkpoints
from flap.training.distributed import World
from flap.training.meter import StepMeter
from flap.training.order import MicroBatches, PairOrder
from flap.training.schedule import set_learning_rate
from flap.training.sharding import moving_average, parallel_from_environment, parameter_groups

CHECKPOINTS, HISTORY = "checkpoints", "history.csv"


@dataclass
class Trainer:
    """Trains `model` on `clips`, on one rank of a run.

    Raises:
        UserError: on construction, settings do not fit together.
    """

    config: PretrainConfig
    model: FlapModel
    tokenizer: PreTrainedTokenizerBase
    clips: pd.DataFrame  # of `training_clips`
    validation: pd.DataFrame  # of `validation_clips`
    world: World

    def __post_init__(self) -> None:
        config = self.config
        if config.batch % self.world.world_size:
            raise UserError(
                f"pretrain.batch {config.batch} is not a multiple of the "
                f"{self.world.world_size} ranks; choose a multiple"
            )
        must_hide = config.views > 1 or config.reconstruction_weight > 0
        grid = self.model.config.encoder.grid
        check_mask(config.mask, grid, "pretrain.mask", must_hide=must_hide)
        self.order = self._make_order()
        self.total_steps = config.epochs * self.order.pairs_per_epoch // config.batch
        if not self.total_steps:
            raise UserError(
                f"pretrain: {config.epochs} epoch(s) of {self.order.pairs_per_epoch} pairs do not "
                f"fill a batch of {config.batch}; lower pretrain.batch or raise pretrain.epochs"
            )
        self._prepare_model()
        self.average = None
        if config.ema_decay is not None:
            self.average = AveragedModel(self.model, multi_avg_fn=moving_average(config.ema_decay))
        average = None if self.average is None else self.trained
        self.parallel = parallel_from_environment(self.model, average, self.world)
        self.inputs = InputBuilder(self.tokenizer, self.model.config, self.world.device)
        self.step = Step(
            config,
            self.parallel,
            self.inputs,
            self.clips,
            self.world,
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
        """The model to evaluate and save: with `ema_decay`, the moving average of the weights."""
        return self.model if self.average is None else self.average.module  # type: ignore[return-value]

    def run(self, folder: Path, on_row: Callable[[Row], None] | None = None) -> None:
        """Train to the end, from the last checkpoint in `folder` if there is one.

        Afterwards `full_model` returns the trained model.

        Args:
            folder: checkpoints and history are written here.
            on_row: called with each new row of the history.
        """
        config, keeps_best = self.config, self.config.keep == "best"
        state = (self.model, self.optimizer)
        with Checkpoints(folder / CHECKPOINTS, *state, ema=self.average) as checkpoints:
            done = checkpoints.load().step
            history = History.resume(folder / HISTORY, done, on_row)
            meter = StepMeter(self.world.device, StepFlops(self.model).take)
            batches = meter.time_waits(iter(self.batches(range(done, self.total_steps))))
            bar = tqdm(
                range(done, self.total_steps),
                "pretrain",
                initial=done,
                total=self.total_steps,
                unit="step",
                disable=not self.world.is_first,
            )
            for step in bar:
                meter.start()
                losses, gradient_norm = self.update(step, batches)
                total = losses.total.item()  # waits for the GPU
                speed = meter.stop(config.batch)
                bar.set_postfix(loss=f"{total:.3f}", pairs_s=f"{speed.pairs_per_second:.0f}")
                is_last = step + 1 == self.total_steps
                is_evaluated = is_last or (step + 1) % config.evaluate_every == 0
                scores = self._validate() if is_evaluated else NOT_VALIDATED
                history.add(
                    step=step + 1,
                    epoch=(step + 1) * config.batch / self.order.pairs_per_epoch,
                    loss=total,
                    contrastive_loss=losses.contrastive,
                    reconstruction_loss=losses.reconstruction,
                    learning_rate=self.optimizer.param_groups[0]["lr"],
                    logit_scale=self.model.logit_scale.exp().item(),
                    gradient_norm=gradient_norm,
                    val_loss=scores.loss,
                    val_recall_at_10=scores.recall_at_10,
                    **speed._asdict(),
                )
                is_due = is_last or (step + 1) % config.checkpoint_every == 0
                if is_due or (is_evaluated and keeps_best):
                    if self.world.is_first:
                        history.flush()
                    checkpoints.save(step + 1, score=scores.recall_at_10)
            if keeps_best:
                checkpoints.wait()
                checkpoints.load(checkpoints.folder.best())
        self.trained.eval()  # type: ignore[no-untyped-call]

    def update(self, step: int, batches: Iterator[Batch]) -> tuple[Losses, torch.Tensor]:
        """Take one optimiser step.

        Returns:
            The losses of the global batch, and the norm of its gradient before clipping.
        """
        config = self.config
        set_learning_rate(
            self.optimizer, config.learning_rate, step, self.total_steps, config.warmup_steps
        )
        self.optimizer.zero_grad(set_to_none=True)
        losses = self.step.backward(step, batches)
        gradient_norm = self.parallel.clip_gradients(config.max_gradient_norm or math.inf)
        self.optimizer.step()
        self.model.clamp_logit_scale()
        if self.average is not None:
            self.average.update_parameters(self.model)
        return losses, gradient_norm

    def full_model(self) -> FlapModel:
        """The trained model, complete on the first rank. Every rank must call this after `run`."""
        return self.parallel.full_model(self.trained)

    def _validate(self) -> Validation:
        if not self.parallel.evaluates:
            return NOT_VALIDATED
        if self.config.captions == "none":
            mask = self.config.mask
            return validate_reconstruction(self.trained, self.inputs, self.validation, mask)
        return validate(self.trained, self.inputs, self.validation)

    def _make_order(self) -> PairOrder:
        captions_of_clip = self.clips["captions"].map(len)
        return PairOrder(
            pd.factorize(self.clips["path"])[0],
            captions_of_clip.clip(lower=1).to_numpy(),  # captions: none has one item a clip
            seed=self.config.seed,
            window=self.config.shuffle_shards,
            batch=self.config.batch,
            streams=self.config.streams,
        )

    def _prepare_model(self) -> None:
        """Move the model to the device, freeze unused parts, set up recomputation and compiling."""
        config, model = self.config, self.model
        model.to(self.world.device)  # type: ignore[arg-type]
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
            rank=self.world.rank,
            world_size=self.world.world_size,
            micro_batch=config.micro_batch,
            forward_passes=self.step.forward_passes,
        )
        sampler = WindowSampler(
            clip_frames=encoder.clip_frames,
            fusion=self.model.config.fusion,
            stripes=config.spec_augment,
            seed=config.seed,
        )
        return read_batches(self.clips, micro_batches, sampler, workers=config.loader_workers)
