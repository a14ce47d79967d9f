"""Run a command, and end its process group when the parent of this process has ended.

    python supervisor.py COMMAND...

The parent makes this process the leader of a session and holds the other end of its standard
input. When that end closes (even by `kill -9`) or the command ends, this process ends all
processes of the group and removes the shared memory that they had mapped. It imports only the
standard library, so that it starts in milliseconds.
"""

import contextlib
import os
import select
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import FrameType

GRACE_S = 20.0
_POLL_S = 0.1
_LOOK_S = 1.0


def main() -> int:
    assert os.getpgrp() == os.getpid(), "start this script as the leader of a session"
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, _ignore)  # the command would inherit SIG_IGN, but not a handler
    command = subprocess.Popen(sys.argv[1:], stdin=subprocess.DEVNULL)
    segments: set[Path] = set()
    while command.poll() is None and not _starter_is_gone(_LOOK_S):
        segments |= shared_memory(os.getpgrp())  # a crashed process no longer shows its mappings
    end_group(os.getpgrp(), segments, command)
    return command.wait()


def end_group(
    group: int, segments: set[Path], command: "subprocess.Popen[bytes] | None" = None
) -> None:
    """Send SIGTERM, and SIGKILL after GRACE_S, to all processes of `group` except this one.

    Removes the shared memory that the group has mapped, and the files in `segments`.
    """
    segments = segments | shared_memory(group)
    for number, patience_s in ((signal.SIGTERM, GRACE_S), (signal.SIGKILL, GRACE_S)):
        for pid in members(group):
            _send(pid, number)
        end = time.monotonic() + patience_s
        while members(group) and time.monotonic() < end:
            if command is not None:
                command.poll()
            time.sleep(_POLL_S)
    for path in segments:
        path.unlink(missing_ok=True)


def members(group: int) -> list[int]:
    """Processes of a group, without this one and without zombies."""
    found = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit() or int(entry.name) == os.getpid():
            continue
        try:
            state, _, pgrp = (entry / "stat").read_text().rpartition(")")[2].split()[:3]
        except OSError:
            continue
        if int(pgrp) == group and state != "Z":
            found.append(int(entry.name))
    return found


def _starter_is_gone(patience_s: float) -> bool:
    ready, _, _ = select.select([sys.stdin.fileno()], [], [], patience_s)
    return bool(ready) and os.read(sys.stdin.fileno(), 1) == b""


def _ignore(_number: int, _frame: FrameType | None) -> None:
    pass


def _send(pid: int, number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, number)


def shared_memory(group: int) -> set[Path]:
    """The files under /dev/shm that processes of the group have mapped."""
    found = set()
    for pid in members(group):
        try:
            lines = Path(f"/proc/{pid}/maps").read_text().splitlines()
        except OSError:
            continue
        for line in lines:
            _, slash, rest = line.partition("/dev/shm/")
            if slash and not rest.endswith(" (deleted)"):
                found.add(Path("/dev/shm") / rest)
    return found


if __name__ == "__main__":
    sys.exit(main())
