"""Prefetching of remote shards: shards are copied to this machine before training needs them.

The order of pairs is known in advance. Threads go through that order ahead of training and copy
every shard that they meet. They hold at most the shards of two windows of this rank's streams:
the window in use and the next one. If a copy is late, the reader fetches the shard itself.
"""

import threading
from collections.abc import Iterator
from functools import partial
from typing import IO

import numpy as np

from flap.core.errors import UserError
from flap.mels.shard_copies import shard_copy
from flap.training.order import MicroBatches, Pair

_THREADS = 4  # one download alone does not use the full bandwidth of a store
_DISK_RETRY_SECONDS = 1.0  # on a full disk; other ranks may free space meanwhile


def with_prefetch(batches: MicroBatches, paths: np.ndarray) -> "MicroBatches | PrefetchedBatches":
    """`batches`, with prefetching if their MELS shards are in a remote store.

    Args:
        paths: (clips,) each clip's MELS shard, or the stub of a remote shard.
    """
    return PrefetchedBatches(batches, paths) if shard_copy(paths[0]) else batches


class PrefetchedBatches:
    """Micro-batches whose shards are prefetched while they are iterated over."""

    def __init__(self, batches: MicroBatches, paths: np.ndarray) -> None:
        self._batches, self._paths = batches, paths

    def __len__(self) -> int:
        return len(self._batches)

    def __iter__(self) -> Iterator[list[Pair]]:
        # The threads start here, after the loader has forked its workers.
        max_shards = 2 * self._batches.open_shards
        prefetcher = _Prefetcher(self._plan(), max_shards, self._batches.batches_per_round)
        try:
            for number, batch in enumerate(self._batches):
                prefetcher.reach(number)
                yield batch
        finally:
            prefetcher.stop()

    def _plan(self) -> Iterator[tuple[int, str]]:
        """(number of a batch, shard) for every shard that the batch reads."""
        for number, batch in enumerate(self._batches):
            for path in dict.fromkeys(self._paths[pair.clip] for pair in batch):
                yield number, path


class _Prefetcher:
    """Fetches the shards of a plan, and holds each until training has read it."""

    def __init__(self, plan: Iterator[tuple[int, str]], max_shards: int, max_batches: int) -> None:
        """
        Args:
            plan: (number of a batch, shard) in the order of training.
            max_shards: shards held at a time.
            max_batches: how many batches the plan may be ahead of training.
        """
        self._plan, self._max_shards, self._max_batches = plan, max_shards, max_batches
        self._reached, self._planned, self._stopped = 0, 0, False
        self._last: dict[str, int] = {}  # shard → the last planned batch that reads it
        self._holds: dict[str, IO[bytes]] = {}
        # Shards without space yet, in the order of the plan. A later shard must not take the space
        # of an earlier one.
        self._queue: dict[str, None] = {}
        self._changed = threading.Condition()
        for _ in range(_THREADS):
            threading.Thread(target=self._run, daemon=True).start()

    def reach(self, number: int) -> None:
        """Release the shards that only batches before `number` read."""
        with self._changed:
            self._reached = number
            past = [path for path, last in self._last.items() if last < number]
            for path in past:
                del self._last[path]
                self._queue.pop(path, None)
                if hold := self._holds.pop(path, None):
                    hold.close()
            self._changed.notify_all()

    def stop(self) -> None:
        with self._changed:
            self._stopped = True
            for hold in self._holds.values():
                hold.close()
            self._holds.clear()
            self._changed.notify_all()

    def _run(self) -> None:
        while (path := self._next()) is not None:
            self._fetch(path)

    def _next(self) -> str | None:
        """The next shard of the plan that is not held yet; None at the end of the plan."""
        while True:
            with self._changed:  # released in each iteration, so that `reach` can run in between
                self._changed.wait_for(lambda: self._stopped or self._has_capacity())
                found = None if self._stopped else next(self._plan, None)
                if found is None:
                    return None
                number, path = found
                self._planned = number
                if number < self._reached:
                    continue
                is_new = path not in self._last
                self._last[path] = number
                if is_new:
                    self._queue[path] = None
                    return path

    def _has_capacity(self) -> bool:
        is_near = self._planned < self._reached + self._max_batches
        return is_near and len(self._last) < self._max_shards

    def _fetch(self, path: str) -> None:
        copy = shard_copy(path)
        assert copy
        with self._changed:
            if not self._is_needed(path):
                return
            self._holds[path] = copy.hold()  # `reach` closes it, also during the download
        try:
            while self._wait_for_turn(path) and not copy.fetch(
                on_reserved=partial(self._leave_queue, path)
            ):
                with self._changed:
                    self._changed.wait(_DISK_RETRY_SECONDS)
        except UserError:  # the reader of the shard tries again and reports the error
            pass
        self._leave_queue(path)

    def _wait_for_turn(self, path: str) -> bool:
        """Wait until no earlier shard waits for space; return whether this one is needed."""
        with self._changed:
            self._changed.wait_for(
                lambda: path not in self._queue or next(iter(self._queue)) == path or self._stopped
            )
            return self._is_needed(path)

    def _leave_queue(self, path: str) -> None:
        with self._changed:
            self._queue.pop(path, None)
            self._changed.notify_all()

    def _is_needed(self, path: str) -> bool:
        return not self._stopped and path in self._last
