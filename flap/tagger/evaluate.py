"""The tagger's predictions for clips, and their mean average precision."""

import numpy as np
import pandas as pd
import torch

from flap.mels.reader import MelReader
from flap.model.tagger import Tagger
from flap.model.windows import middle_windows

_BATCH = 64


@torch.inference_mode()
def predict(tagger: Tagger, clips: pd.DataFrame) -> np.ndarray:
    """Probabilities of all classes for the middle window of each clip, (clips, classes)."""
    device, reader = next(tagger.parameters()).device, MelReader()
    parts = []
    for start in range(0, len(clips), _BATCH):
        rows = clips.iloc[start : start + _BATCH]
        windows = middle_windows(reader.read_all(rows), tagger.config.clip_frames, fusion=False)
        parts.append(tagger.logits(windows.mel_BCTF.to(device)).sigmoid().float().cpu())
    return torch.cat(parts).numpy()


def mean_average_precision(hot_CX: np.ndarray, probability_CX: np.ndarray) -> dict[str, float]:
    """Macro-averaged AP over the classes that occur in `hot_CX`, as AudioSet is scored.

    `chance` is the mean share of positives, which is the AP of a random order.
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
