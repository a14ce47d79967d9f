"""Child processes that never outlive this process, and the signals that end it.

A child runs under `supervisor.py`, in a separate session. Ctrl-C in the terminal reaches the child
only through this process. If this process is killed, the supervisor ends the child and all its
descendants.
"""

import ctypes
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import IO, Any

from flap.core import supervisor

SIGNALLED = 128  # the exit code after signal n is 128 + n
INTERRUPT_SECONDS, GRACE_SECONDS = 10.0, 5.0
_PR_SET_PDEATHSIG = 1


def exit_with_parent() -> None:
    """Ask Linux for a SIGTERM when the parent dies, so that a killed DVC leaves no stage behind."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)


def exit_on_sigterm() -> None:
    """Turn SIGTERM into SystemExit, so that `finally` blocks run."""
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(SIGNALLED + number))


def supervised(
    argv: Sequence[str], env: Mapping[str, str], grace_seconds: float = GRACE_SECONDS, **popen: Any
) -> "subprocess.Popen[Any]":
    """Start `argv` under a supervisor, with standard error in standard output.

    Args:
        grace_seconds: time between SIGTERM and SIGKILL.
        popen: further arguments of Popen.
    """
    command = [sys.executable, "-I", supervisor.__file__, str(grace_seconds), *argv]
    return subprocess.Popen(
        command,
        env=env,
        stdin=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
        **popen,
    )


def end(process: "subprocess.Popen[Any]", grace_seconds: float = GRACE_SECONDS) -> None:
    """End a supervised process with all its children, and wait for them."""
    assert process.stdin is not None
    process.stdin.close()
    try:
        process.wait(3 * grace_seconds)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    supervisor.end_family(process.pid, grace_seconds, set())  # if the supervisor was killed


class Stopped(Exception):
    """The child was not started, because the run has ended."""


class Children:
    """Child processes of one run. `end` ends the live children; afterwards none can start."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._live: list[subprocess.Popen[str]] = []
        self._ended = False

    def start(
        self, argv: Sequence[str], env: Mapping[str, str], output: int | IO[str] | None = None
    ) -> "subprocess.Popen[str]":
        """Start `argv`; both of its streams go to `output`, the argument `stdout` of Popen.

        Raises:
            Stopped: `end` was called.
        """
        with self._lock:
            if self._ended:
                raise Stopped("not started: the run is over")
            child = supervised(argv, env, stdout=output, text=True, errors="replace")
            self._live.append(child)
            return child

    def run(
        self, argv: Sequence[str], env: Mapping[str, str], on_line: Callable[[str], None]
    ) -> int:
        """Run `argv`, call `on_line` with each line of output, and return the exit code.

        An exception such as KeyboardInterrupt ends the child.
        """
        child = self.start(argv, env, subprocess.PIPE)
        assert child.stdout is not None
        try:
            for line in child.stdout:
                if text := line.rstrip():
                    on_line(text)
            return child.wait()
        except BaseException:
            _interrupt(child)
            raise
        finally:
            with self._lock:
                self._live.remove(child)

    def end(self) -> None:
        """End every child, all at the same time."""
        with self._lock:
            self._ended = True
            live = list(self._live)
        enders = [threading.Thread(target=_interrupt, args=(child,)) for child in live]
        for ender in enders:
            ender.start()
        for ender in enders:
            ender.join()


def _interrupt(child: "subprocess.Popen[str]") -> None:
    """Send SIGINT, so that a stage keeps its finished work; then end the child."""
    with suppress(ProcessLookupError):
        os.killpg(child.pid, signal.SIGINT)
    with suppress(subprocess.TimeoutExpired):
        child.wait(INTERRUPT_SECONDS)
    end(child, GRACE_SECONDS)
