"""A process between a Ray worker and its rank, which outlives the one to end the other.

Ray kills its workers outright, and a rank whose peers are gone can hang where no signal but
SIGKILL reaches it. Linux tells this process of the worker's end; it first asks, then forces.
"""

import signal
import subprocess
import sys

from flap.core.processes import end_tree
from pipeline.stage import exit_with_parent

SIGNALLED = 128  # plus n is the exit code for signal n
# Until then a killed rank may hold its GPU's memory, and others wait for the lock on the work.
_GRACE_SECONDS = ((signal.SIGTERM, 5.0), (signal.SIGKILL, 5.0))


def main() -> None:
    """`python -m pipeline.launch.keeper MODULE ARGUMENTS…`: run the module, with its exit code."""
    exit_with_parent()
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(SIGNALLED + number))
    rank = subprocess.Popen(
        [sys.executable, "-m", *sys.argv[1:]], text=True, start_new_session=True
    )
    try:
        code = rank.wait()
    finally:
        end_tree(rank, _GRACE_SECONDS)
    sys.exit(code if code >= 0 else SIGNALLED - code)


if __name__ == "__main__":
    main()
