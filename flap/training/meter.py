"""How fast training runs: pairs a second, waiting for data, memory, share of the device's peak."""

import math
import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple, TypeVar

import torch

from flap.training.peak import peak_flops

Item = TypeVar("Item")


class Reading(NamedTuple):
    """Of one step."""

    pairs_per_second: float
    data_wait: float  # share of the step's time
    peak_memory_gib: float  # so far: of the GPU, or of this process
    mfu: float  # model FLOPs of the step / what the device could do meanwhile; NaN if unknown


class Meter:
    """A stopwatch around each step; time between steps does not count.

    Args:
        take_flops: FLOPs of this rank since it was last called; asked where the peak is known.
            NaN gives an `mfu` of NaN.

    Raises:
        UserError: as `peak_flops`.
    """

    def __init__(self, device: torch.device, take_flops: Callable[[], float]) -> None:
        self._device, self._waited, self._started = device, 0.0, 0.0
        self._peak_flops, self._take_flops = peak_flops(device), take_flops

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
        return Reading(
            pairs_per_second=pairs / seconds,
            data_wait=self._waited / seconds,
            peak_memory_gib=self._peak_memory_gib(),
            mfu=self._mfu(seconds),
        )

    def _mfu(self, seconds: float) -> float:
        """Of this rank; all have equal shares of a step."""
        if math.isnan(self._peak_flops):
            return math.nan
        return self._take_flops() / seconds / self._peak_flops

    def _peak_memory_gib(self) -> float:
        if self._device.type == "cuda":
            return torch.cuda.max_memory_allocated(self._device) / 2**30
        # Not getrusage's ru_maxrss, which a process inherits from the one that started it.
        status = Path("/proc/self/status")
        if not status.exists():  # only Linux has it
            return math.nan
        (kib,) = re.findall(r"VmHWM:\s+(\d+) kB", status.read_text())
        return int(kib) / 2**20
