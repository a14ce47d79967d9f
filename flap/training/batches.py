"""Pairs → batches of mel windows, read ahead by PyTorch's DataLoader."""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import torch
from torch.utils.data import DataLoader, Dataset

from flap.clips import MelReader, crop_or_pad
from flap.training.order import GlobalBatches, Pair


@dataclass(frozen=True)
class Batch:
    mel_BTF: torch.Tensor  # un-normalised windows, float32
    pairs: list[Pair]


def read_batches(
    clips: pd.DataFrame,
    batches: GlobalBatches,
    *,
    clip_frames: int,
    seed: int,
    window_shards: int,
    workers: int,
) -> Iterable[Batch]:
    """The windows of this rank's share of each global batch.

    Args:
        clips: columns path and row, as `flap.clips.usable_clips` gives them.
        window_shards: shards shuffled together, kept in memory by each worker.
        workers: processes that read ahead; 0 reads in this one.
    """
    paths = clips["path"].unique()
    row_groups = max(pq.read_metadata(path).num_row_groups for path in paths)
    dataset = _Windows(clips, clip_frames, seed, cached_row_groups=window_shards * row_groups)
    return DataLoader(dataset, batch_sampler=batches, collate_fn=_collate, num_workers=workers)


class _Windows(Dataset[tuple[np.ndarray, Pair]]):
    """Windows by `Pair`; the crop of a long clip is drawn from (seed, pair)."""

    def __init__(
        self, clips: pd.DataFrame, clip_frames: int, seed: int, cached_row_groups: int
    ) -> None:
        self._paths, self._rows = clips["path"].to_numpy(), clips["row"].to_numpy()
        self._clip_frames, self._seed = clip_frames, seed
        self._reader = MelReader(cached_row_groups)

    def __getitem__(self, pair: Pair) -> tuple[np.ndarray, Pair]:
        mel_TF = self._reader.read(self._paths[pair.clip], int(self._rows[pair.clip]))
        draw = np.random.default_rng([self._seed, pair.epoch, pair.clip, pair.caption])
        return crop_or_pad(mel_TF, self._clip_frames, draw.random()), pair


def _collate(items: list[tuple[np.ndarray, Pair]]) -> Batch:
    windows, pairs = zip(*items, strict=True)
    return Batch(torch.from_numpy(np.stack(windows)), list(pairs))
