"""Fine-tuning of the tagger on the labels of the training clips."""

from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch.nn import functional as F
from tqdm import tqdm

from flap.core.errors import UserError
from flap.model.masking import draw_mask
from flap.model.tagger import Tagger
from flap.tagger.config import TaggerConfig
from flap.training.batches import Batch, WindowSampler, read_batches
from flap.training.checkpoint import Checkpoints
from flap.training.order import MicroBatches, PairOrder
from flap.training.schedule import set_learning_rate
from flap.training.seeds import derive_seed


def train(
    config: TaggerConfig,
    tagger: Tagger,
    clips: pd.DataFrame,
    hot_CX: np.ndarray,
    checkpoints: Path,
) -> None:
    """Train the tagger in place with binary cross-entropy and tokens masked by `config.mask`.

    Training resumes from the folder `checkpoints`. Order, crops and masks depend only on the
    seed and the step, so a resumed run ends with the same weights as an unbroken run.

    Args:
        clips: rows of `flap.mels.clips.usable_clips`.
        hot_CX: multi-hot targets of the clips over the tagger's classes.

    Raises:
        UserError: all epochs together are shorter than one batch.
    """
    order = PairOrder(
        pd.factorize(clips["path"])[0],
        np.ones(len(clips), int),
        seed=config.seed,
        window=config.shuffle_shards,
        batch=config.batch,
    )
    total_steps = config.epochs * len(clips) // config.batch
    if not total_steps:
        raise UserError(
            f"tagger: {len(clips)} clips in {config.epochs} epochs are fewer than one batch of "
            f"{config.batch}; lower tagger.batch"
        )
    optimizer = torch.optim.AdamW(
        tagger.parameters(),
        lr=config.learning_rate,
        betas=config.betas,
        weight_decay=config.weight_decay,
    )
    draw = WindowSampler(tagger.config.clip_frames, False, config.spec_augment, config.seed)
    with Checkpoints(checkpoints, tagger, optimizer) as saved:
        steps = range(saved.load().step, total_steps)
        batches = read_batches(
            clips, MicroBatches(order, steps), draw, workers=config.loader_workers
        )
        tagger.train()
        pairs = zip(steps, batches, strict=True)
        bar = tqdm(pairs, "tagger", initial=steps.start, total=total_steps, unit="step")
        for step, batch in bar:
            set_learning_rate(
                optimizer, config.learning_rate, step, total_steps, config.warmup_steps
            )
            loss = _loss(config, tagger, step, batch, hot_CX)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
            bar.set_postfix(loss=f"{loss.item():.3f}")
            if (step + 1) % config.checkpoint_every == 0 or step + 1 == total_steps:
                saved.save(step + 1)
    tagger.eval()


def _loss(
    config: TaggerConfig, tagger: Tagger, step: int, batch: Batch, hot_CX: np.ndarray
) -> torch.Tensor:
    """Binary cross-entropy of one batch: the sum over classes, the mean over clips.

    The mean over 527 classes would make the gradient of the few present classes tiny.
    """
    device = next(tagger.parameters()).device
    generator = torch.Generator().manual_seed(derive_seed(config.seed, step))
    keep_BK = draw_mask(config.mask, tagger.config.grid, config.batch, generator)
    logits_BX = tagger.logits(
        batch.windows.mel_BCTF.to(device), None if keep_BK is None else keep_BK.to(device)
    )
    hot_BX = torch.from_numpy(hot_CX[[pair.clip for pair in batch.pairs]]).to(device)
    return F.binary_cross_entropy_with_logits(logits_BX, hot_BX, reduction="sum") / len(hot_BX)
