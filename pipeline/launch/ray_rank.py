"""What Ray Train runs in each of its workers: a rank, as a process of its own.

Ray worker       run_rank: tells the ranks where they meet, forwards what its rank prints
└─ supervisor    ends the rank if Ray kills the worker
   └─ rank       the stage, as under torchrun: the same environment, the same exit codes
"""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

import ray
from ray.train import get_context
from ray.train.collective import broadcast_from_rank_zero

from flap.core.errors import UserError
from flap.core.processes import SIGNALLED, supervised
from flap.training import RANKS_FOLDER
from pipeline.launch.topology import interface

# A rank whose peer left with a message to the user fails before that peer has ended and told it.
_SETTLE_SECONDS = 5.0
_CHUNK_BYTES = 2**16


class RankFailed(Exception):
    """A rank ended without having finished; Ray Train starts all again."""


@dataclass(frozen=True)
class Stage:
    """What each rank runs: `python -m module arguments` in the folder `project`.

    `environ` is the launcher's; what a machine sets itself wins there.
    """

    module: str
    arguments: list[str]
    project: str
    environ: dict[str, str]


def run_rank(told: Mapping[str, Any]) -> None:
    """Run a rank to its end; Ray Train calls this in each of its workers.

    Args:
        told: `stage`, and the `queue` that gets the rank's output as bytes, its `UserError`, and
            as text how it failed.

    Raises:
        RankFailed: the rank died, or ended by an error that is not the user's.
    """
    stage, queue = told["stage"], told["queue"]
    try:
        code = _run(stage, queue)
    except UserError as error:  # raised, it would have all begin again
        queue.put(error)
        return
    if code:
        failure = f"failed ({_name(code)})"
        queue.put(f"rank {get_context().get_world_rank()} {failure}")
        if code < SIGNALLED:
            time.sleep(_SETTLE_SECONDS)
        raise RankFailed(failure)


def _run(stage: Stage, queue: Any) -> int:
    """The exit code of the rank, which for signal n is 128 + n."""
    context = get_context()
    folder = mkdtemp(dir=Path.cwd())  # Ray Train gives the run a folder on each machine
    message = Path(folder, "message")
    numbers = {
        "RANK": context.get_world_rank(),
        "WORLD_SIZE": context.get_world_size(),
        "LOCAL_RANK": context.get_local_rank(),
        "LOCAL_WORLD_SIZE": context.get_local_world_size(),
    }
    own = dict(os.environ)
    own.pop("OMP_NUM_THREADS", None)  # set by Ray, for the one core that it counts a rank as
    threads = {"OMP_NUM_THREADS": "1"} if context.get_local_world_size() > 1 else {}  # as torchrun
    environ = threads | stage.environ | own
    environ = _network(context, environ, folder) | {
        **{name: str(number) for name, number in numbers.items()},
        "TORCHELASTIC_ERROR_FILE": str(message),
    }
    rank = supervised(
        [sys.executable, "-m", stage.module, *stage.arguments],
        environ,
        cwd=stage.project,
        stdout=subprocess.PIPE,
        bufsize=0,
    )
    assert rank.stdout is not None
    while output := rank.stdout.read(_CHUNK_BYTES):
        queue.put(output)
    code = rank.wait()
    if message.exists():
        raise UserError(json.loads(message.read_text())["message"])
    return code


def _network(context: Any, environ: dict[str, str], folder: str) -> dict[str, str]:
    """`environ` with the interface to train over, and where the ranks meet: all at one place.

    On one machine that is a file in rank 0's `folder`; a port would be open to all.

    Raises:
        UserError: `FLAP_INTERFACE` is none of this machine's.
    """
    is_one_machine = context.get_local_world_size() == context.get_world_size()
    own = interface(environ, "127.0.0.1" if is_one_machine else _node_address(), 0)
    place = {RANKS_FOLDER: folder} if is_one_machine else _endpoint(own.address)
    names = dict.fromkeys(("GLOO_SOCKET_IFNAME", "NCCL_SOCKET_IFNAME"), own.name)
    return names | environ | broadcast_from_rank_zero(place)


def _node_address() -> str:
    """This machine's address on the cluster."""
    own = ray.get_runtime_context().get_node_id()
    return next(str(node["NodeManagerAddress"]) for node in ray.nodes() if node["NodeID"] == own)


def _endpoint(address: str) -> dict[str, str]:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.socket(family) as probe:
        probe.bind((address, 0))
        return {"MASTER_ADDR": address, "MASTER_PORT": str(probe.getsockname()[1])}


def _name(code: int) -> str:
    return signal.Signals(code - SIGNALLED).name if code > SIGNALLED else f"exit code {code}"
