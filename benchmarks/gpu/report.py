"""Results so far, on the screen and in a file."""

import json
import math
import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
import transformers

from benchmarks.gpu.setting import Setting


class Report:
    """The JSON that the benchmark ends with; `out` has it from the first section on."""

    def __init__(self, setting: Setting, out: Path | None) -> None:
        self._out, self._began = out, time.perf_counter()
        self.ratios: dict[str, float] = {}
        self.found: dict[str, dict[str, Any]] = {}
        self.seconds: dict[str, float] = {}
        self.errors: dict[str, str] = {}
        self.skipped: list[str] = []
        self._about = _machine(setting)

    @property
    def elapsed(self) -> float:
        return time.perf_counter() - self._began

    def note(self, section: str, **values: Any) -> None:
        """Print and keep the results of a section."""
        self.found.setdefault(section, {}).update(values)
        self.say(f"{section}: {json.dumps(_plain(values))[:300]}")

    def say(self, text: str) -> None:
        print(f"[{self.elapsed:6.1f} s] {text}", flush=True)

    def write(self) -> None:
        if self._out:
            self._out.write_text(json.dumps(self.whole(), indent=2) + "\n")

    def whole(self) -> dict[str, Any]:
        head = {"benchmark": "gpu", "ratios": self.ratios}
        rest = {"seconds": self.seconds, "errors": self.errors, "skipped": self.skipped}
        return _plain(head | self._about | self.found | rest)


def _machine(setting: Setting) -> dict[str, Any]:
    about: dict[str, Any] = {"card": str(setting.device), "cores": os.cpu_count()}
    if setting.device.type == "cuda":
        card = torch.cuda.get_device_properties(setting.device)
        about |= {"card": card.name, "card_gib": card.total_memory / 2**30}
    versions = {"torch": torch.__version__, "transformers": transformers.__version__}
    return about | versions | {"tiny": setting.tiny}


def _plain(value: Any) -> Any:
    """The value with four digits for each number, and null for NaN and infinity."""
    if isinstance(value, Mapping):
        return {str(key): _plain(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(each) for each in value]
    if isinstance(value, float):
        return float(f"{value:.4g}") if math.isfinite(value) else None
    return value
