"""Processes that never outlive us, with all that they start.

Each child leads a session of its own, so that Ctrl-C in the terminal reaches it only through
us, in order: interrupt (stages keep what is finished), terminate, kill.
"""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import IO

import psutil

GRACE_SECONDS = ((signal.SIGINT, 10.0), (signal.SIGTERM, 5.0), (signal.SIGKILL, 5.0))
LEFTOVER_SECONDS = 10.0
# Where we are killed outright, Linux ends the child; a preexec_fn could deadlock among threads.
_BOUND = """
import ctypes, os, sys
if sys.platform == "linux":
    ctypes.CDLL(None).prctl(1, 15)  # PR_SET_PDEATHSIG, SIGTERM
os.execvpe(sys.argv[1], sys.argv[1:], os.environ)
"""


class Stopped(Exception):
    """The child was not started, or was ended, because the run is over."""


class Children:
    """Children of one run; `end` ends those that live and lets none start afterwards."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._live: list[subprocess.Popen[str]] = []
        self._ended = False

    def start(
        self, argv: Sequence[str], env: Mapping[str, str], output: int | IO[str] | None = None
    ) -> "subprocess.Popen[str]":
        """Start `argv`, both streams to `output` (as Popen's stdout; None: where ours goes).

        Raises:
            Stopped: `end` was called.
        """
        with self._lock:
            if self._ended:
                raise Stopped("not started: the run is over")
            child = subprocess.Popen(
                [sys.executable, "-S", "-c", _BOUND, *argv],
                env=env,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                text=True,
                errors="replace",
                start_new_session=True,
            )
            self._live.append(child)
            return child

    def run(
        self, argv: Sequence[str], env: Mapping[str, str], on_line: Callable[[str], None]
    ) -> int:
        """Run `argv` to its end, each line of output through `on_line`; the exit code.

        Whatever interrupts us ends the child, and a child that exits leaves nothing behind.
        """
        child = self.start(argv, env, subprocess.PIPE)
        assert child.stdout is not None
        # Without this a grandchild that keeps the pipe open would hold us for ever.
        reaper = threading.Thread(target=_reap, args=(child,), daemon=True)
        reaper.start()
        try:
            for line in child.stdout:
                if text := line.rstrip():
                    on_line(text)
            reaper.join()
            return child.wait()
        except BaseException:
            end_tree(child)
            raise
        finally:
            with self._lock:
                self._live.remove(child)

    def end(self) -> None:
        """End every child, at the same time."""
        with self._lock:
            self._ended = True
            live = list(self._live)
        enders = [threading.Thread(target=end_tree, args=(child,)) for child in live]
        for ender in enders:
            ender.start()
        for ender in enders:
            ender.join()


def end_tree(
    child: "subprocess.Popen[str]", grace: Sequence[tuple[int, float]] = GRACE_SECONDS
) -> None:
    """End a child, its session, and descendants that have left the session.

    Args:
        grace: the signals in order, and the seconds that each is waited for.
    """
    family = _descendants(child.pid)
    for number, seconds in grace:
        _signal_group(child.pid, number)
        if number != signal.SIGINT:  # those in other sessions are first left to their parent
            for process in family:
                _signal_one(process, number)
        _, family = psutil.wait_procs(family, timeout=seconds)
        if not family and _exited(child, seconds):
            break
    _signal_group(child.pid, signal.SIGKILL)


def _reap(child: "subprocess.Popen[str]") -> None:
    """Once the child is gone, give what it left in its group a moment, then kill it."""
    child.wait()
    deadline = time.monotonic() + LEFTOVER_SECONDS
    while _signal_group(child.pid, 0) and time.monotonic() < deadline:
        time.sleep(0.1)
    _signal_group(child.pid, signal.SIGKILL)


def _exited(child: "subprocess.Popen[str]", seconds: float) -> bool:
    try:
        child.wait(seconds)
    except subprocess.TimeoutExpired:
        return False
    return True


def _descendants(pid: int) -> list[psutil.Process]:
    try:
        return list(psutil.Process(pid).children(recursive=True))
    except psutil.NoSuchProcess:
        return []


def _signal_group(pid: int, number: int) -> bool:
    """Whether the group of `pid` exists; signal 0 only asks."""
    try:
        os.killpg(pid, number)
    except ProcessLookupError:
        return False
    return True


def _signal_one(process: psutil.Process, number: int) -> None:
    with suppress(psutil.NoSuchProcess):
        process.send_signal(number)
