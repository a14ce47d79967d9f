"""Timed steps of the training loop: speed, memory, and the kernels that take the time."""

import gc
import math
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from itertools import cycle
from statistics import median
from typing import Any

import pandas as pd
import torch
from torch.autograd import DeviceType
from torch.profiler import ProfilerActivity, profile

from benchmarks.gpu.setting import Setting
from flap.model.windows import WindowBatch
from flap.pretrain.loop import Trainer
from flap.pretrain.step_flops import StepFlops
from flap.training.batches import Batch
from flap.training.distributed import World
from flap.training.meter import StepMeter, StepMetrics
from flap.training.order import Pair

CPU = torch.device("cpu")
TOP_KERNELS, PROFILED_STEPS = 14, 2


@dataclass(frozen=True)
class Speed:
    """Medians over steps; `first_seconds` of the first one, in which torch compiles."""

    batch: int
    clips_per_second: float
    seconds: float
    mfu: float
    peak_gib: float
    first_seconds: float
    retries: int  # allocations that had to wait for others to be freed

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


class Training:
    """A fresh model that the project's `Trainer` trains on one device."""

    def __init__(
        self,
        setting: Setting,
        mask: str,
        *,
        batch: int,
        micro_batch: int | None = None,
        compiled: bool = False,
        reconstruction: bool = False,
        tokens: int | None = None,
        clips: pd.DataFrame | None = None,
        count_flops: bool = True,
    ) -> None:
        """
        Args:
            tokens: of the longest caption.
            clips: what `from_disk` reads; without it there is only `from_memory`.
        """
        torch.compiler.reset()  # else shapes of earlier models would make these dynamic
        release(setting.device)
        torch.manual_seed(0)
        changes = {"micro_batch": micro_batch, "compile": compiled and not setting.tiny}
        weight = {"reconstruction_weight": float(reconstruction)}
        config = setting.pretrain(mask, batch, **changes, **weight)
        model = setting.fresh_model(with_decoder=reconstruction)
        clips = setting.clips(batch, tokens or setting.tokens) if clips is None else clips
        alone = World(0, 1, setting.device)
        self.trainer = Trainer(config, model, setting.tokenizer, clips, clips, alone)
        take = StepFlops(model).take if count_flops else lambda: math.nan
        self._setting, self._meter, self._done = setting, StepMeter(setting.device, take), 0

    def from_memory(self, device: torch.device) -> Iterator[Batch]:
        """Micro-batches for ever, of the same windows, which are on `device`."""
        parts = self.trainer.step.micro_batches
        windows = self._setting.windows(parts[0].stop)
        mel_BCTF, longer_B = windows.mel_BCTF.to(device), windows.longer_B.to(device)
        for part in cycle(parts):
            pairs = [Pair(clip, 0, 0) for clip in range(part.start, part.stop)]
            yield Batch(WindowBatch(mel_BCTF[: len(pairs)], longer_B[: len(pairs)]), pairs)

    def from_disk(self, steps: int) -> Iterator[Batch]:
        return iter(self.trainer.batches(range(steps)))

    def run(self, steps: int, batches: Iterator[Batch]) -> list[StepMetrics]:
        """Run the next `steps` steps; returns the metrics of each."""
        readings, batches = [], self._meter.time_waits(batches)
        for _ in range(steps):
            self._meter.start()
            losses, _norm = self.trainer.update(self._done, batches)
            losses.total.item()  # waits for the device
            readings.append(self._meter.stop(self.trainer.config.batch))
            self._done += 1
        return readings


def measure(
    setting: Setting,
    mask: str,
    *,
    warm_up: int | None = None,
    steps: int | None = None,
    kernels: dict[str, Any] | None = None,
    windows_on: torch.device = CPU,
    **how: Any,
) -> Speed:
    """The speed of training from memory; `how` as of `Training`.

    Args:
        kernels: receives the busiest kernels of the GPU; None: no profile.
    """
    training = Training(setting, mask, **how)
    batches = training.from_memory(windows_on)
    first, *_ = training.run(warm_up or setting.warm_up, batches)
    readings = training.run(steps or setting.steps, batches)
    speed = speed_of(readings, training.trainer.config.batch, first)
    if kernels is not None and setting.device.type == "cuda":
        kernels |= busiest_kernels(training, batches, speed.seconds)
    return speed


def speed_of(readings: list[StepMetrics], batch: int, first: StepMetrics) -> Speed:
    rate = median(reading.pairs_per_second for reading in readings)
    retries = torch.cuda.memory_stats().get("num_alloc_retries", 0) if _on_cuda() else 0
    return Speed(
        batch=batch,
        clips_per_second=rate,
        seconds=batch / rate,
        mfu=median(reading.mfu for reading in readings),
        peak_gib=readings[-1].peak_memory_gib,
        first_seconds=batch / first.pairs_per_second,
        retries=retries,
    )


def busiest_kernels(training: Training, batches: Iterator[Batch], seconds: float) -> dict[str, Any]:
    """The GPU's share of a step's time, and which kernels take how much of a step.

    Args:
        seconds: of a step that is not profiled.
    """
    try:
        with profile(activities=[ProfilerActivity.CUDA]) as found:
            training.run(PROFILED_STEPS, batches)
        spent = Counter[str]()
        for event in found.key_averages():
            # Annotations, as of the optimiser's step, hold kernels that are counted themselves.
            if event.device_type == DeviceType.CUDA and not event.is_user_annotation:
                spent[event.key[:90]] += event.self_device_time_total / 1e6 / PROFILED_STEPS
    except Exception as error:
        return {"kernels": f"not profiled: {error}"}
    shares = {name: round(each / seconds, 4) for name, each in spent.most_common(TOP_KERNELS)}
    return {"busy": spent.total() / seconds, "kernels": shares}


def release(device: torch.device) -> None:
    """Free the memory of earlier models, and reset the peak."""
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(device)
        torch.cuda.reset_accumulated_memory_stats(device)


def _on_cuda() -> bool:
    return torch.cuda.is_available()
