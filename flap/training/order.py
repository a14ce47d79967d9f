"""Order of training data: a pure function of the seed, whatever the number of ranks.

An epoch shows every pair (clip, caption) once. It runs in rounds: a round shows each clip
with one of its captions, so that a batch rarely holds a clip twice, which the contrastive
loss would take for a wrong answer. Within a round, shards are shuffled, and clips within a
window of shards, so that a reader holds only that window in memory.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

import numpy as np


@dataclass(frozen=True)
class Pair:
    """A clip's position in the training table, one of its captions, and the epoch it is for."""

    clip: int
    caption: int
    epoch: int


class PairOrder:
    """The endless sequence of pairs, epoch after epoch, addressed by position."""

    def __init__(
        self, shard_of_clip: np.ndarray, captions_of_clip: np.ndarray, seed: int, window: int
    ) -> None:
        """
        Args:
            shard_of_clip: (clips,) number of each clip's shard.
            captions_of_clip: (clips,) number of captions of each clip, at least one.
            window: shards shuffled together.
        """
        assert len(shard_of_clip) == len(captions_of_clip) and captions_of_clip.min() >= 1
        self._shards, self._counts = shard_of_clip, captions_of_clip
        self._seed, self._window = seed, window
        self._epoch = lru_cache(maxsize=2)(self._draw_epoch)

    @property
    def pairs_per_epoch(self) -> int:
        return int(self._counts.sum())

    def pairs(self, start: int, stop: int) -> Iterator[Pair]:
        """Pairs at positions start..stop-1."""
        for position in range(start, stop):
            epoch, offset = divmod(position, self.pairs_per_epoch)
            clip, caption = self._epoch(epoch)[offset]
            yield Pair(int(clip), int(caption), epoch)

    def _draw_epoch(self, epoch: int) -> np.ndarray:
        """(pairs, 2): clip and caption, in order."""
        rng = np.random.default_rng([self._seed, epoch])
        first_caption = rng.integers(self._counts)
        rounds = []
        for number in range(int(self._counts.max())):
            clips = self._draw_round(np.flatnonzero(self._counts > number), rng)
            captions = (first_caption[clips] + number) % self._counts[clips]
            rounds.append(np.stack([clips, captions], axis=1))
        return np.concatenate(rounds)

    def _draw_round(self, clips: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        shards = rng.permutation(np.unique(self._shards[clips]))
        windows = (shards[i : i + self._window] for i in range(0, len(shards), self._window))
        return np.concatenate(
            [
                rng.permutation(clips[np.isin(self._shards[clips], list(window))])
                for window in windows
            ]
        )


class GlobalBatches:
    """Batch sampler: this rank's equal share of each global batch, from `first_step` on."""

    def __init__(
        self, order: PairOrder, size: int, steps: range, *, rank: int, world_size: int
    ) -> None:
        assert size % world_size == 0
        self._order, self._size, self._steps = order, size, steps
        self._share = size // world_size
        self._offset = rank * self._share

    def __len__(self) -> int:
        return len(self._steps)

    def __iter__(self) -> Iterator[list[Pair]]:
        for step in self._steps:
            start = step * self._size + self._offset
            yield list(self._order.pairs(start, start + self._share))
