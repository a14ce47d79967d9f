"""Shards that lie elsewhere are fetched before training comes to them.

The order of pairs is known, so threads walk it ahead of the batches that are dealt out, and have
every shard copied that they come upon, up to as many as two windows of this rank's streams have:
those that are read now, and the next. What is not there in time is fetched by its reader.
"""

import threading
from collections.abc import Iterator
from typing import IO

import numpy as np

from flap.core.errors import UserError
from flap.mels.shard_copies import shard_copy
from flap.training.order import MicroBatches, Pair

_FETCHES = 4  # at a time; a store gives a single one a fraction of the network
_ROOM_SECONDS = 1.0  # between looks for room on the disk, which other ranks may have left


def fetched_ahead(batches: MicroBatches, paths: np.ndarray) -> "MicroBatches | FetchedAhead":
    """The same batches; their shards are fetched ahead where `paths` are stubs.

    Args:
        paths: (clips,) each clip's MELS shard or stub.
    """
    return FetchedAhead(batches, paths) if shard_copy(paths[0]) else batches


class FetchedAhead:
    """Micro-batches whose shards are fetched ahead, from when they are iterated."""

    def __init__(self, batches: MicroBatches, paths: np.ndarray) -> None:
        self._batches, self._paths = batches, paths

    def __len__(self) -> int:
        return len(self._batches)

    def __iter__(self) -> Iterator[list[Pair]]:
        # Threads begin here, when the loader has forked its workers.
        most = 2 * self._batches.shards_at_a_time
        ahead = _Ahead(self._plan(), most, self._batches.per_round)
        try:
            for number, batch in enumerate(self._batches):
                ahead.reach(number)
                yield batch
        finally:
            ahead.stop()

    def _plan(self) -> Iterator[tuple[int, str]]:
        """Number of each batch with every shard that it reads."""
        for number, batch in enumerate(self._batches):
            for path in dict.fromkeys(self._paths[pair.clip] for pair in batch):
                yield number, path


class _Ahead:
    """Fetches what a plan names, and holds it until the plan is past it."""

    def __init__(self, plan: Iterator[tuple[int, str]], most: int, batches: int) -> None:
        """
        Args:
            most: shards held at a time.
            batches: how many of them are looked ahead, however few shards they read.
        """
        self._plan, self._most, self._batches = plan, most, batches
        self._reached, self._seen, self._stopped = 0, 0, False
        self._last: dict[str, int] = {}  # shard → the last batch known to read it
        self._holds: dict[str, IO[bytes]] = {}
        self._changed = threading.Condition()
        for _ in range(_FETCHES):
            threading.Thread(target=self._run, daemon=True).start()

    def reach(self, number: int) -> None:
        """Batch `number` is dealt out: shards that only earlier ones read are let go."""
        with self._changed:
            self._reached = number
            past = [path for path, last in self._last.items() if last < number]
            for path in past:
                del self._last[path]
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
        """The next shard of the plan that is not held yet; None at the end."""
        while True:
            with self._changed:  # anew for each step, that `reach` may come between
                self._changed.wait_for(lambda: self._stopped or self._may_look())
                found = None if self._stopped else next(self._plan, None)
                if found is None:
                    return None
                number, path = found
                self._seen = number
                if number < self._reached:
                    continue
                is_new = path not in self._last
                self._last[path] = number
                if is_new:
                    return path

    def _may_look(self) -> bool:
        return len(self._last) < self._most and self._seen < self._reached + self._batches

    def _fetch(self, path: str) -> None:
        copy = shard_copy(path)
        assert copy
        hold = copy.hold()
        try:
            while self._is_ahead(path) and not copy.fetch():
                with self._changed:
                    self._changed.wait(_ROOM_SECONDS)
        except UserError:  # who reads the shard tries again, and says it
            pass
        with self._changed:
            if self._is_ahead(path) and path not in self._holds:
                self._holds[path] = hold
            else:
                hold.close()

    def _is_ahead(self, path: str) -> bool:
        return not self._stopped and path in self._last
