"""Fine-tuning of the tagger on the labels of the training clips, and its mAP on held-out ones."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch.nn import functional as F
from tqdm import tqdm

from flap.core.errors import UserError
from flap.mels.reader import MelReader
from flap.model.masking import draw_mask
from flap.model.tagger import Tagger
from flap.model.windows import middle_windows
from flap.tagger.config import TaggerConfig
from flap.training.batches import Batch, WindowSampler, read_batches
from flap.training.checkpoint import Checkpoints
from flap.training.order import MicroBatches, PairOrder
from flap.training.schedule import set_learning_rate
from flap.training.seeds import derive_seed

_EVALUATION_BATCH = 64


@dataclass(frozen=True)
class Targets:
    """Labels of clips as rows over the tagger's classes."""

    hot_CX: np.ndarray  # float32, 1 where the clip has the class
    unknown: dict[str, int]  # labels that are no class of the tagger, with their counts


def targets(labels_of_clip: pd.Series, classes: tuple[str, ...]) -> Targets:
    """Rows in the clips' order; labels that are no class are counted, not dropped unseen."""
    position = {name: i for i, name in enumerate(classes)}
    hot_CX = np.zeros((len(labels_of_clip), len(classes)), dtype=np.float32)
    unknown: dict[str, int] = {}
    for clip, labels in enumerate(labels_of_clip):
        for label in labels:
            if label in position:
                hot_CX[clip, position[label]] = 1
            else:
                unknown[label] = unknown.get(label, 0) + 1
    return Targets(hot_CX, unknown)


def train(
    config: TaggerConfig,
    tagger: Tagger,
    clips: pd.DataFrame,
    hot_CX: np.ndarray,
    checkpoints: Path,
) -> None:
    """Train in place with binary cross-entropy, tokens masked as in `config.mask`.

    Resumes from what stands in the folder `checkpoints`; order, crops and masks are functions
    of the step, so the weights are those of an unbroken run.
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
            f"tagger: {len(clips)} clips make no batch of {config.batch}; lower tagger.batch"
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
    """Binary cross-entropy of one batch, summed over classes.

    A mean over 527 classes would leave the few present ones no weight.
    """
    device = next(tagger.parameters()).device
    generator = torch.Generator().manual_seed(derive_seed(config.seed, step))
    keep_BK = draw_mask(config.mask, tagger.config.grid, config.batch, generator)
    logits_BX = tagger.logits(
        batch.windows.mel_BCTF.to(device), None if keep_BK is None else keep_BK.to(device)
    )
    hot_BX = torch.from_numpy(hot_CX[[pair.clip for pair in batch.pairs]]).to(device)
    return F.binary_cross_entropy_with_logits(logits_BX, hot_BX, reduction="sum") / len(hot_BX)


@torch.inference_mode()
def predict(tagger: Tagger, clips: pd.DataFrame) -> np.ndarray:
    """Probability of each class for the middle window of each clip, (clips, classes)."""
    device, reader = next(tagger.parameters()).device, MelReader()
    parts = []
    for start in range(0, len(clips), _EVALUATION_BATCH):
        rows = clips.iloc[start : start + _EVALUATION_BATCH]
        windows = middle_windows(reader.read_all(rows), tagger.config.clip_frames, fusion=False)
        parts.append(tagger.logits(windows.mel_BCTF.to(device)).sigmoid().float().cpu())
    return torch.cat(parts).numpy()


def mean_average_precision(hot_CX: np.ndarray, probability_CX: np.ndarray) -> dict[str, float]:
    """mAP over the classes that occur, as AudioSet is scored, and how many those are.

    `chance` is the mean share of positives: the average precision of a random order.
    """
    from sklearn.metrics import average_precision_score

    present = hot_CX.any(axis=0)
    hot_CX, probability_CX = hot_CX[:, present], probability_CX[:, present]
    return {
        "mAP": float(average_precision_score(hot_CX, probability_CX, average="macro")),
        "chance": float(hot_CX.mean()),
        "classes": int(present.sum()),
        "clips": len(hot_CX),
    }
