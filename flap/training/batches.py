"""Pairs → batches of mel windows, read ahead by PyTorch's DataLoader."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pandas as pd
from torch.utils.data import DataLoader, Dataset

from flap.core.errors import UserError
from flap.mels.reader import MelReader
from flap.model.windows import SpecAugment, Window, WindowBatch, make_window, spec_augment, stack
from flap.training.order import MicroBatches, Pair
from flap.training.prefetch import fetched_ahead


@dataclass(frozen=True)
class Batch:
    windows: WindowBatch
    pairs: list[Pair]


@dataclass(frozen=True)
class WindowDraw:
    """How a training window is drawn from a clip; all that is random comes from `seed`."""

    clip_frames: int
    fusion: bool
    stripes: SpecAugment
    seed: int

    def __call__(self, mel_TF: np.ndarray, pair: Pair) -> Window:
        random = np.random.default_rng([self.seed, pair.epoch, pair.clip, pair.caption])
        window = make_window(mel_TF, self.clip_frames, self.fusion, random.random)
        return spec_augment(window, self.stripes, random)


def read_batches(
    clips: pd.DataFrame,
    batches: MicroBatches,
    draw: WindowDraw,
    *,
    workers: int,
) -> Iterator[Batch]:
    """The windows of this rank's micro-batches.

    Args:
        clips: columns path and row, as `flap.mels.clips.usable_clips` gives them.
        workers: processes that read ahead; 0 reads in this one.

    Raises:
        UserError: as of `flap.mels.reader.MelReader.read`.
    """
    loader = DataLoader(
        _Windows(clips, draw),
        batch_sampler=fetched_ahead(batches, clips["path"].to_numpy()),
        collate_fn=_collate,
        num_workers=workers,
    )
    try:
        yield from loader
        return
    except UserError as error:
        told = str(error)
    # A worker's error has its traceback in the message. Raised out here, ours lets the loader go.
    raise UserError(told.rpartition(f"{UserError.__name__}: ")[2].strip())


class _Windows(Dataset[tuple[Window, Pair]]):
    """Windows by `Pair`."""

    def __init__(self, clips: pd.DataFrame, draw: WindowDraw) -> None:
        self._paths, self._rows = clips["path"].to_numpy(), clips["row"].to_numpy()
        self._draw, self._reader = draw, MelReader()

    def __getitem__(self, pair: Pair) -> tuple[Window, Pair]:
        mel_TF = self._reader.read(self._paths[pair.clip], int(self._rows[pair.clip]))
        return self._draw(mel_TF, pair), pair


def _collate(items: list[tuple[Window, Pair]]) -> Batch:
    windows, pairs = zip(*items, strict=True)
    return Batch(stack(windows), list(pairs))
