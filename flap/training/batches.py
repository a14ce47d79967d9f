"""Pairs → batches of log-mel windows, loaded in advance by PyTorch's DataLoader."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pandas as pd
from torch.utils.data import DataLoader, Dataset

from flap.core.errors import UserError
from flap.mels.reader import MelReader
from flap.model.config import SpecAugment
from flap.model.windows import Window, WindowBatch, make_window, spec_augment, stack
from flap.training.order import MicroBatches, Pair
from flap.training.prefetch import with_prefetch


@dataclass(frozen=True)
class Batch:
    windows: WindowBatch
    pairs: list[Pair]


@dataclass(frozen=True)
class WindowSampler:
    """Draws a training window from a clip; all random choices follow from `seed` and the pair."""

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
    sampler: WindowSampler,
    *,
    workers: int,
) -> Iterator[Batch]:
    """Load the windows of this rank's micro-batches.

    Args:
        clips: columns `path` and `row`, as `flap.mels.clips.usable_clips` returns them.
        workers: worker processes of the loader; 0 loads in this process.

    Raises:
        UserError: a shard cannot be read, see `flap.mels.reader.MelReader.read`.
    """
    loader = DataLoader(
        _WindowDataset(clips, sampler),
        batch_sampler=with_prefetch(batches, clips["path"].to_numpy()),
        collate_fn=_collate,
        num_workers=workers,
    )
    try:
        yield from loader
        return
    except UserError as error:
        message = str(error)
    # A worker's error carries the worker's traceback in its message, before our message. Raised
    # outside of the `except` block, the new error holds no reference to the loader.
    raise UserError(message.rpartition(f"{UserError.__name__}: ")[2].strip())


class _WindowDataset(Dataset[tuple[Window, Pair]]):
    """`Pair` → its window."""

    def __init__(self, clips: pd.DataFrame, sampler: WindowSampler) -> None:
        self._paths, self._rows = clips["path"].to_numpy(), clips["row"].to_numpy()
        self._sampler, self._reader = sampler, MelReader()

    def __getitem__(self, pair: Pair) -> tuple[Window, Pair]:
        mel_TF = self._reader.read(self._paths[pair.clip], int(self._rows[pair.clip]))
        return self._sampler(mel_TF, pair), pair


def _collate(items: list[tuple[Window, Pair]]) -> Batch:
    windows, pairs = zip(*items, strict=True)
    return Batch(stack(windows), list(pairs))
