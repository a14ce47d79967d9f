"""Run a command, and end all its processes when the starter closes the pipe or dies.

    python supervisor.py GRACE_SECONDS COMMAND...

The starter makes the supervisor the leader of a new session and holds the other end of its
standard input. The supervisor ends every process of the session, and every descendant of the
command, when that pipe closes (`kill -9` of the starter closes it too) or when the command
exits. It also removes the shared memory that those processes had mapped. It exits with the
command's exit code, or with 128 + n after signal n.

`flap.core.processes` starts supervisors. This file imports nothing of FLAP, so it starts quickly.
"""

import ctypes
import os
import signal
import subprocess
import sys
import threading
from contextlib import suppress
from pathlib import Path
from types import FrameType

import psutil

_SHARED_MEMORY = "/dev/shm/"
_PR_SET_CHILD_SUBREAPER = 36
_POLL_SECONDS = 1.0


def main() -> int:
    assert os.getpgrp() == os.getpid(), "start the supervisor in a new session"
    grace_seconds, *argv = sys.argv[1:]
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, _ignore)  # children do not inherit a handler; they inherit SIG_IGN
    if sys.platform == "linux":  # orphans become our children, not init's
        ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1)
    command = subprocess.Popen(argv, stdin=subprocess.DEVNULL)
    pipe_closed, segments = threading.Event(), set[Path]()
    threading.Thread(target=_wait_for_end_of_pipe, args=(pipe_closed,), daemon=True).start()
    while command.poll() is None and not pipe_closed.is_set():
        with suppress(subprocess.TimeoutExpired):
            command.wait(_POLL_SECONDS)
        segments |= shared_memory(family(os.getpid()))  # a crashed process has no list
    end_family(os.getpid(), float(grace_seconds), segments)
    code = command.wait()
    return code if code >= 0 else 128 - code


def family(supervisor: int) -> list[psutil.Process]:
    """Live processes of a supervisor's session and all descendants, without the supervisor."""
    found = {process for process in psutil.process_iter() if _group(process) == supervisor}
    with suppress(psutil.NoSuchProcess):
        found.update(psutil.Process(supervisor).children(recursive=True))
    return [one for one in found if one.pid not in (supervisor, os.getpid()) and is_live(one)]


def end_family(supervisor: int, grace_seconds: float, segments: set[Path]) -> None:
    """SIGTERM, and after `grace_seconds` SIGKILL, to the family of a supervisor.

    Args:
        segments: files of shared memory to remove, beside those that are mapped now.
    """
    processes = family(supervisor)
    segments = segments | shared_memory(processes)
    for number in (signal.SIGTERM, signal.SIGKILL):
        processes = list({*processes, *family(supervisor)})
        for process in processes:
            with suppress(psutil.NoSuchProcess):
                process.send_signal(number)
        _, processes = psutil.wait_procs(processes, timeout=grace_seconds)
        processes = [process for process in processes if is_live(process)]
        if not processes:
            break
    for path in segments:
        path.unlink(missing_ok=True)


def shared_memory(processes: list[psutil.Process]) -> set[Path]:
    """Files under /dev/shm that these processes have mapped."""
    found = set()
    for process in processes:
        try:
            lines = Path(f"/proc/{process.pid}/maps").read_text().splitlines()
        except OSError:
            continue
        for line in lines:
            _, slash, name = line.partition(_SHARED_MEMORY)
            if slash and not name.endswith(" (deleted)"):
                found.add(Path(_SHARED_MEMORY) / name)
    return found


def is_live(process: psutil.Process) -> bool:
    """Whether a process runs. A zombie is dead; its parent has not waited for it yet."""
    try:
        return process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def _group(process: psutil.Process) -> int | None:
    try:
        return os.getpgid(process.pid)
    except (ProcessLookupError, PermissionError):
        return None


def _wait_for_end_of_pipe(closed: threading.Event) -> None:
    while os.read(sys.stdin.fileno(), 1):
        pass
    closed.set()


def _ignore(_number: int, _frame: FrameType | None) -> None:
    pass


if __name__ == "__main__":
    sys.exit(main())
