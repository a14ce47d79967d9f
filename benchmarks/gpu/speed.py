"""Sections on the speed and the memory of steps; what they find is in the package's words."""

import math
from typing import Any

import torch

from benchmarks.gpu.report import Report
from benchmarks.gpu.setting import MASKS, Setting
from benchmarks.gpu.training import Speed, measure, release

TRIES, GRID = 6, 16  # a sixteenth of the batch is the step that sizes are searched by


class Bench:
    """A setting, its report, and the speeds that several sections ask for."""

    def __init__(self, setting: Setting, report: Report) -> None:
        self.setting, self.report = setting, report
        self._speeds: dict[tuple[str, bool], Speed] = {}

    def speed(self, mask: str, *, compiled: bool = False) -> Speed:
        """Speed for `setting.batch` pairs, measured at the first call."""
        key = (mask, compiled)
        if key not in self._speeds:
            kernels: dict[str, Any] = {}
            batch = self.setting.batch
            speed = measure(self.setting, mask, batch=batch, compiled=compiled, kernels=kernels)
            self._speeds[key] = speed
            section = "compiled" if compiled else "step"
            self.report.note(section, **{mask: speed.as_dict() | kernels})
        return self._speeds[key]

    def is_measured(self, mask: str, *, compiled: bool) -> bool:
        return (mask, compiled) in self._speeds


def step(bench: Bench) -> None:
    ratios = bench.report.ratios
    for mask in MASKS:
        ratios[f"mfu_{mask}"] = bench.speed(mask).mfu
    for mask in ("1d", "2d"):
        ratios[f"masked_{mask}"] = over(bench.speed(mask), bench.speed("unmasked"))


def compiled(bench: Bench) -> None:
    for mask in ("2d", "unmasked"):
        _compiled(bench, mask)
    fast, slow = (bench.speed(mask, compiled=True) for mask in ("2d", "unmasked"))
    bench.report.ratios["compiled_masked_2d"] = over(fast, slow)


def compiled_1d(bench: Bench) -> None:
    _compiled(bench, "1d")
    fast, slow = (bench.speed(mask, compiled=True) for mask in ("1d", "unmasked"))
    bench.report.ratios["compiled_masked_1d"] = over(fast, slow)


def _compiled(bench: Bench, mask: str) -> None:
    speed, ratios = bench.speed(mask, compiled=True), bench.report.ratios
    ratios[f"compiled_{mask}"] = over(speed, bench.speed(mask))
    ratios[f"mfu_compiled_{mask}"] = speed.mfu


def largest(bench: Bench) -> None:
    ratios, speeds = bench.report.ratios, dict[str, Speed]()
    for mask in MASKS:
        speeds[mask] = _largest(bench, mask)
        ratios[f"mfu_largest_{mask}"] = speeds[mask].mfu
    for mask in ("1d", "2d"):
        ratios[f"largest_{mask}"] = speeds[mask].batch / speeds["unmasked"].batch
        ratios[f"largest_masked_{mask}"] = over(speeds[mask], speeds["unmasked"])


def _largest(bench: Bench, mask: str) -> Speed:
    """Predict the largest batch from the peaks of two sizes; if it fails, try less."""
    setting = bench.setting
    sizes = (setting.batch // 4, setting.batch // 2)
    peaks = []
    for size in sizes:
        probe = measure(setting, mask, batch=size, warm_up=1, steps=1, count_flops=False)
        peaks.append(probe.peak_gib)
    of_clip = (peaks[1] - peaks[0]) / (sizes[1] - sizes[0])
    fixed = peaks[0] - sizes[0] * of_clip
    grid, on_cuda = max(1, setting.batch // GRID), setting.device.type == "cuda"
    predicted = int((_free_gib(setting.device) - fixed) / of_clip) if on_cuda else sizes[1]
    about = {"foretold": predicted, "mib_a_clip": of_clip * 1024, "fixed_gib": fixed}
    size = predicted // grid * grid + grid * on_cuda
    for _ in range(TRIES):
        speed = _if_it_fits(setting, mask, size)
        if speed is not None:
            bench.report.note("largest", **{mask: speed.as_dict() | about})
            return speed
        size -= grid
    raise RuntimeError(f"{mask}: {size + grid} pairs do not fit; the prediction was {predicted}")


def _if_it_fits(setting: Setting, mask: str, size: int) -> Speed | None:
    try:
        return measure(setting, mask, batch=size, warm_up=2, steps=min(5, setting.steps))
    except torch.OutOfMemoryError:
        return None


def _free_gib(device: torch.device) -> float:
    """GPU memory that this process can use."""
    release(device)
    return (torch.cuda.mem_get_info(device)[0] + torch.cuda.memory_reserved(device)) / 2**30


def cached(bench: Bench) -> None:
    setting = bench.setting
    how = {"batch": setting.big_batch, "micro_batch": setting.batch, "warm_up": 1, "steps": 3}
    speed = measure(setting, "2d", **how)
    bench.report.note("cached", **speed.as_dict(), micro_batch=setting.batch)
    bench.report.ratios["cached_2304"] = over(speed, bench.speed("2d"))


def reconstruction(bench: Bench) -> None:
    speed = measure(bench.setting, "2d", batch=bench.setting.batch, reconstruction=True)
    bench.report.note("reconstruction", **speed.as_dict())
    bench.report.ratios["reconstruction"] = over(speed, bench.speed("2d"))


def long_captions(bench: Bench) -> None:
    how = {"batch": bench.setting.batch, "tokens": bench.setting.long_tokens}
    speeds = {mask: measure(bench.setting, mask, **how) for mask in ("2d", "unmasked")}
    bench.report.note("long_captions", **{mask: each.as_dict() for mask, each in speeds.items()})
    bench.report.ratios["long_captions_masked_2d"] = over(speeds["2d"], speeds["unmasked"])


def resident(bench: Bench) -> None:
    setting = bench.setting
    speed = measure(setting, "2d", batch=setting.batch, windows_on=setting.device)
    bench.report.note("resident", **speed.as_dict())
    bench.report.ratios["resident_2d"] = over(speed, bench.speed("2d"))


def over(ours: Speed, theirs: Speed) -> float:
    """Our clips a second over theirs."""
    rate = ours.clips_per_second / theirs.clips_per_second
    return rate if math.isfinite(rate) else math.nan
