"""How fast training runs: pairs a second, the share of time spent waiting for data, memory."""

import math
import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple, TypeVar

import torch

Item = TypeVar("Item")


class Reading(NamedTuple):
    """Of one step."""

    pairs_per_second: float
    data_wait: float  # share of the step's time
    peak_memory_gib: float  # so far: of the GPU, or of this process


class Meter:
    """A stopwatch around each step; time between steps does not count."""

    def __init__(self, device: torch.device) -> None:
        self._device, self._waited, self._started = device, 0.0, 0.0

    def waiting_for(self, items: Iterator[Item]) -> Iterator[Item]:
        """The items; the time that they take to come is waited."""
        while True:
            before = time.perf_counter()
            try:
                item = next(items)
            except StopIteration:
                return
            self._waited += time.perf_counter() - before
            yield item

    def start(self) -> None:
        self._waited, self._started = 0.0, time.perf_counter()

    def stop(self, pairs: int) -> Reading:
        """What the step of `pairs` pairs took; its work on the device is done."""
        seconds = time.perf_counter() - self._started
        return Reading(pairs / seconds, self._waited / seconds, self._peak_memory_gib())

    def _peak_memory_gib(self) -> float:
        if self._device.type == "cuda":
            return torch.cuda.max_memory_allocated(self._device) / 2**30
        # Not getrusage's ru_maxrss, which a process inherits from the one that started it.
        status = Path("/proc/self/status")
        if not status.exists():  # only Linux has it
            return math.nan
        (kib,) = re.findall(r"VmHWM:\s+(\d+) kB", status.read_text())
        return int(kib) / 2**20
