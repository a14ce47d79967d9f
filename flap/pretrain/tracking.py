"""Sends the rows of the history to experiment trackers: `FLAP_TRACKERS=tensorboard,mlflow,wandb`.

Each tracker runs in its own thread, so a slow server delays no step. A tracker that fails is
switched off with a warning.
"""

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from importlib import import_module
from types import TracebackType

from tqdm import tqdm

from flap.core.errors import UserError, first_line, missing_extra
from flap.pretrain.history import Row
from flap.pretrain.trackers import TRACKERS, RunInfo, Tracker


def trackers_from_environment() -> list[str]:
    """The trackers that FLAP_TRACKERS names; none if it is not set.

    Raises:
        UserError: a name is unknown, or its package is not installed.
    """
    setting = os.environ.get("FLAP_TRACKERS", "")
    names = [name.strip() for name in setting.split(",") if name.strip()]
    for name in names:
        if name not in TRACKERS:
            raise UserError(f"FLAP_TRACKERS={setting}: expected some of {', '.join(TRACKERS)}")
        try:
            import_module(name)
        except ImportError:
            raise missing_extra(f"FLAP_TRACKERS={setting}", name, name) from None
    return names


class TrackerGroup:
    """The trackers of a run, each in its own thread; leaving the `with` block closes them."""

    def __init__(self, names: list[str], run: RunInfo) -> None:
        self._threads = [_TrackerThread(name, run) for name in dict.fromkeys(names)]

    def add(self, row: Row) -> None:
        """Log a row of the history, without its empty cells."""
        values = {name: float(cell) for name, cell in row.items() if cell}
        for thread in self._threads:
            thread.add(values)

    def __enter__(self) -> "TrackerGroup":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: object, trace: TracebackType | None
    ) -> None:
        for thread in self._threads:
            thread.close(finished=kind is None)


class _TrackerThread:
    def __init__(self, name: str, run: RunInfo) -> None:
        self._name, self._run = name, run
        self._tracker: Tracker | None = None
        self._failed = False
        self._executor = ThreadPoolExecutor(1)

    def add(self, values: dict[str, float]) -> None:
        self._executor.submit(self._try, partial(self._add, values))

    def close(self, *, finished: bool) -> None:
        self._executor.submit(self._try, partial(self._close, finished))
        self._executor.shutdown()

    def _try(self, call: Callable[[], None]) -> None:
        if self._failed:
            return
        try:
            call()
        except Exception as error:
            self._failed = True
            tqdm.write(f"pretrain: {self._name} failed and is switched off: {first_line(error)}")

    def _add(self, values: dict[str, float]) -> None:
        step = int(values["step"])
        if self._tracker is None:
            self._run.folder.mkdir(parents=True, exist_ok=True)
            self._tracker = TRACKERS[self._name](self._run, step)
        self._tracker.add(step, values)

    def _close(self, finished: bool) -> None:
        if self._tracker is not None:
            self._tracker.close(finished=finished)
