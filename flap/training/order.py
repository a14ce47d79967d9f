"""Order of the training data: a function of the seed, the same for any number of ranks.

1. An epoch shows every pair (clip, caption) once.
2. An epoch consists of rounds. A round shows each clip with one of its captions, so a batch
   rarely holds a clip twice. The contrastive loss would treat the second copy as a negative.
3. A round shuffles the shards, groups them into windows, and shuffles the clips of each window.
4. The round is cut into a fixed number of contiguous streams. A batch takes equally many pairs
   from each stream. A rank reads some of the streams, so it needs few shards at a time.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property, lru_cache

import numpy as np


@dataclass(frozen=True)
class Pair:
    """A training example."""

    clip: int  # row of the training table
    caption: int  # index into the clip's captions
    epoch: int


class PairOrder:
    """The endless sequence of pairs, epoch after epoch, indexed by position."""

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
            captions_of_clip: (clips,) number of captions of each clip, at least 1.
            window: number of shards whose clips are shuffled together.
            batch: pairs of a global batch; batch s starts at position s · `batch`.
            streams: streams of a round; divides `batch`.
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
        """The pairs at positions start..stop-1."""
        for position in range(start, stop):
            epoch, offset = divmod(position, self.pairs_per_epoch)
            clip, caption = self._epoch(epoch)[offset]
            yield Pair(int(clip), int(caption), epoch)

    def _draw_epoch(self, epoch: int) -> np.ndarray:
        """Clip and caption of each pair of an epoch in order, (pairs, 2)."""
        rng = np.random.default_rng([self._seed, epoch])
        first_caption = rng.integers(self._counts)
        rounds, position = [], epoch * self.pairs_per_epoch
        for number in range(int(self._counts.max())):
            clips = self._draw_round(np.flatnonzero(self._counts > number), rng)
            clips = self._interleave_streams(clips, position)
            captions = (first_caption[clips] + number) % self._counts[clips]
            rounds.append(np.stack([clips, captions], axis=1))
            position += len(clips)
        return np.concatenate(rounds)

    def _draw_round(self, clips: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """`clips` ordered by windows of shards, and shuffled within each window."""
        window_of_shard = rng.permutation(self._shards.max() + 1) // self.window
        return clips[np.lexsort((rng.random(len(clips)), window_of_shard[self._shards[clips]]))]

    def _interleave_streams(self, clips: np.ndarray, position: int) -> np.ndarray:
        """Reorder a round so that each batch takes an equal share of each stream.

        Clips that share a batch with the round before or after keep their place.

        Args:
            position: position of the round's first clip in the endless sequence.
        """
        head = min(-position % self.batch, len(clips))
        batches = (len(clips) - head) // self.batch
        tail = head + batches * self.batch
        share = self.batch // self.streams
        streams = clips[head:tail].reshape(self.streams, batches, share)
        return np.concatenate([clips[:head], streams.swapaxes(0, 1).reshape(-1), clips[tail:]])


class MicroBatches:
    """Batch sampler: the micro-batches of this rank's equal share of each global batch."""

    def __init__(
        self,
        order: PairOrder,
        steps: range,
        *,
        rank: int = 0,
        world_size: int = 1,
        micro_batch: int | None = None,
        forward_passes: int = 1,
    ) -> None:
        """
        Args:
            micro_batch: pairs of a micro-batch; the last one may be smaller. None: the share is
                one micro-batch.
            forward_passes: how often a step goes through its micro-batches.
        """
        assert order.batch % world_size == 0
        self._order, self._steps, self._forward_passes = order, steps, forward_passes
        share = order.batch // world_size
        bounds = micro_batch_bounds(share, micro_batch)
        self._parts = [(rank * share + start, rank * share + stop) for start, stop in bounds]
        self.open_shards = order.window * -(-order.streams // world_size)
        self.batches_per_round = -(-order.clips // order.batch) * forward_passes * len(self._parts)

    def __len__(self) -> int:
        return len(self._steps) * self._forward_passes * len(self._parts)

    def __iter__(self) -> Iterator[list[Pair]]:
        for step in self._steps:
            for _ in range(self._forward_passes):
                for start, stop in self._parts:
                    offset = step * self._order.batch
                    yield list(self._order.pairs(offset + start, offset + stop))


def micro_batch_bounds(share: int, micro_batch: int | None) -> list[tuple[int, int]]:
    """Start and stop of each micro-batch of a rank's share; None: the share is one micro-batch."""
    size = micro_batch or share
    return [(start, min(start + size, share)) for start in range(0, share, size)]
