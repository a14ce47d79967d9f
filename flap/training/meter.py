"""Throughput of training: pairs a second, share of time spent on data, memory, MFU."""

import math
import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple, TypeVar

import torch

from flap.training.peak import peak_flops

Item = TypeVar("Item")


class StepMetrics(NamedTuple):
    """Measurements of one step."""

    pairs_per_second: float
    data_wait: float  # share of the step's time spent waiting for data
    peak_memory_gib: float  # since the start: of the GPU, or of this process on a CPU
    mfu: float  # model FLOPs utilisation, 0..1; NaN if the FLOPs or the peak are unknown


class StepMeter:
    """Measures each step between `start` and `stop`; the time between steps does not count.

    Args:
        count_flops: returns the FLOPs of this rank since the last call, NaN if unknown. Called
            only if the peak of the device is known.

    Raises:
        UserError: FLAP_PEAK_TFLOPS is not a number above 0.
    """

    def __init__(self, device: torch.device, count_flops: Callable[[], float]) -> None:
        self._device, self._waited, self._started = device, 0.0, 0.0
        self._peak_flops, self._take_flops = peak_flops(device), count_flops

    def time_waits(self, items: Iterator[Item]) -> Iterator[Item]:
        """Yield `items`; the time until each arrives counts as waiting for data."""
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

    def stop(self, pairs: int) -> StepMetrics:
        """Measurements of the step since `start`.

        Args:
            pairs: pairs of the global batch. The device must have finished the step.
        """
        seconds = time.perf_counter() - self._started
        return StepMetrics(
            pairs_per_second=pairs / seconds,
            data_wait=self._waited / seconds,
            peak_memory_gib=self._peak_memory_gib(),
            mfu=self._mfu(seconds),
        )

    def _mfu(self, seconds: float) -> float:
        """MFU of this rank; all ranks have equal shares of a step."""
        if math.isnan(self._peak_flops):
            return math.nan
        return self._take_flops() / seconds / self._peak_flops

    def _peak_memory_gib(self) -> float:
        if self._device.type == "cuda":
            return torch.cuda.max_memory_allocated(self._device) / 2**30
        # A process inherits getrusage's ru_maxrss from its parent, so it is of no use here.
        status = Path("/proc/self/status")
        if not status.exists():  # not Linux
            return math.nan
        (kib,) = re.findall(r"VmHWM:\s+(\d+) kB", status.read_text())
        return int(kib) / 2**20
