"""Order of training data: a pure function of the seed, whatever the number of ranks.

An epoch shows every pair (clip, caption) once. It runs in rounds: a round shows each clip
with one of its captions, so that a batch rarely holds a clip twice, which the contrastive
loss would take for a wrong answer. Within a round, shards are shuffled, and clips within a
window of shards. The result is dealt to a fixed number of streams, each a stretch of it, and a
batch takes as many pairs of each stream: so a rank, whose share of the batches is some of the
streams, reads its own shards, a window of them at a time.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property, lru_cache

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
        self,
        shard_of_clip: np.ndarray,
        captions_of_clip: np.ndarray,
        *,
        seed: int,
        window: int,
        batch: int,
        streams: int = 1,
    ) -> None:
        """
        Args:
            shard_of_clip: (clips,) number of each clip's shard, from 0.
            captions_of_clip: (clips,) number of captions of each clip, at least one.
            window: shards shuffled together.
            batch: pairs of a global batch; batches begin at its multiples.
            streams: stretches of a round that a batch takes equal parts of; divides `batch`.
        """
        assert len(shard_of_clip) == len(captions_of_clip) and captions_of_clip.min() >= 1
        assert batch % streams == 0
        self._shards, self._counts = shard_of_clip, captions_of_clip
        self._seed = seed
        self.batch, self.streams, self.window = batch, streams, window
        self.clips = len(shard_of_clip)
        self._epoch = lru_cache(maxsize=2)(self._draw_epoch)

    @cached_property
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
        rounds, position = [], epoch * self.pairs_per_epoch
        for number in range(int(self._counts.max())):
            clips = self._draw_round(np.flatnonzero(self._counts > number), rng)
            clips = self._dealt(clips, position)
            captions = (first_caption[clips] + number) % self._counts[clips]
            rounds.append(np.stack([clips, captions], axis=1))
            position += len(clips)
        return np.concatenate(rounds)

    def _draw_round(self, clips: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Windows of shards one after the other, each window's clips shuffled."""
        window_of_shard = rng.permutation(self._shards.max() + 1) // self.window
        return clips[np.lexsort((rng.random(len(clips)), window_of_shard[self._shards[clips]]))]

    def _dealt(self, clips: np.ndarray, position: int) -> np.ndarray:
        """A round's clips so that each batch that lies in it takes an equal part of each stream.

        What stands in a batch with clips of the round before or after stays where it is.

        Args:
            position: of the first clip among the pairs of all epochs.
        """
        head = min(-position % self.batch, len(clips))
        batches = (len(clips) - head) // self.batch
        tail = head + batches * self.batch
        share = self.batch // self.streams
        dealt = clips[head:tail].reshape(self.streams, batches, share).swapaxes(0, 1)
        return np.concatenate([clips[:head], dealt.reshape(-1), clips[tail:]])


class MicroBatches:
    """Batch sampler: this rank's equal share of each global batch, a micro-batch at a time."""

    def __init__(
        self,
        order: PairOrder,
        steps: range,
        *,
        rank: int = 0,
        world_size: int = 1,
        micro_batch: int | None = None,
        passes: int = 1,
    ) -> None:
        """
        Args:
            micro_batch: pairs at a time, the last ones fewer; None: the whole share.
            passes: how often a step goes through its micro-batches.
        """
        assert order.batch % world_size == 0
        self._order, self._steps, self._passes = order, steps, passes
        share = order.batch // world_size
        self._parts = [(rank * share + a, rank * share + b) for a, b in cut(share, micro_batch)]
        self.shards_at_a_time = order.window * -(-order.streams // world_size)
        self.per_round = -(-order.clips // order.batch) * passes * len(self._parts)

    def __len__(self) -> int:
        return len(self._steps) * self._passes * len(self._parts)

    def __iter__(self) -> Iterator[list[Pair]]:
        for step in self._steps:
            for _ in range(self._passes):
                for start, stop in self._parts:
                    offset = step * self._order.batch
                    yield list(self._order.pairs(offset + start, offset + stop))


def cut(share: int, micro_batch: int | None) -> list[tuple[int, int]]:
    """Start and stop of each micro-batch of a share; None: all of it is one."""
    size = micro_batch or share
    return [(start, min(start + size, share)) for start in range(0, share, size)]
