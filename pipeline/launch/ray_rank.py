"""One rank of a run on Ray Train. Each Ray worker starts its rank as a separate process.

Ray worker       run_rank: gives the rank its rendezvous, forwards the output of the rank
└─ supervisor    ends the rank if Ray kills the worker
   └─ rank       the stage, with the environment and the exit codes of torchrun
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
from flap.training import RENDEZVOUS_FOLDER
from pipeline.launch.topology import interface

# If a rank ends with a `UserError`, its peers can fail before that message has arrived. A failed
# worker waits for this time, so that the message comes first.
_SETTLE_SECONDS = 5.0
_CHUNK_BYTES = 2**16


class RankFailed(Exception):
    """A rank did not finish; Ray Train restarts all ranks."""


@dataclass(frozen=True)
class Stage:
    """The command of each rank: `python -m module arguments` in the folder `project`.

    `environ` is the environment of the launcher. Variables that a machine sets itself override it.
    """

    module: str
    arguments: list[str]
    project: str
    environ: dict[str, str]


def run_rank(config: Mapping[str, Any]) -> None:
    """Run a rank and wait for its end. Ray Train calls this function in each of its workers.

    Args:
        config: `stage`, and `queue`, which receives the output of the rank as bytes, its
            `UserError`, and its failure as text.

    Raises:
        RankFailed: the rank died, or ended with another error than a `UserError`.
    """
    stage, queue = config["stage"], config["queue"]
    try:
        code = _run(stage, queue)
    except UserError as error:  # raising it would make Ray Train restart all ranks
        queue.put(error)
        return
    if code:
        failure = f"failed ({_describe(code)})"
        queue.put(f"rank {get_context().get_world_rank()} {failure}")
        if code < SIGNALLED:
            time.sleep(_SETTLE_SECONDS)
        raise RankFailed(failure)


def _run(stage: Stage, queue: Any) -> int:
    """Run the rank; its exit code is 128 + n after signal n."""
    context = get_context()
    folder = mkdtemp(dir=Path.cwd())  # the working directory is Ray Train's folder for this run
    message = Path(folder, "message")
    numbers = {
        "RANK": context.get_world_rank(),
        "WORLD_SIZE": context.get_world_size(),
        "LOCAL_RANK": context.get_local_rank(),
        "LOCAL_WORLD_SIZE": context.get_local_world_size(),
    }
    own = dict(os.environ)
    own.pop("OMP_NUM_THREADS", None)  # Ray sets 1, because it counts a rank as one core
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
    """`environ` with the network interface and the rendezvous, which all ranks get from rank 0.

    On one machine, the rendezvous is a file in rank 0's `folder`, because a port would be open to
    other users. On several machines, the rendezvous is an address and a port of rank 0.

    Raises:
        UserError: this machine has no interface `FLAP_INTERFACE`.
    """
    is_one_machine = context.get_local_world_size() == context.get_world_size()
    own = interface(environ, "127.0.0.1" if is_one_machine else _node_address(), 0)
    rendezvous = {RENDEZVOUS_FOLDER: folder} if is_one_machine else _endpoint(own.address)
    names = dict.fromkeys(("GLOO_SOCKET_IFNAME", "NCCL_SOCKET_IFNAME"), own.name)
    return names | environ | broadcast_from_rank_zero(rendezvous)


def _node_address() -> str:
    """This machine's address on the cluster."""
    own = ray.get_runtime_context().get_node_id()
    return next(str(node["NodeManagerAddress"]) for node in ray.nodes() if node["NodeID"] == own)


def _endpoint(address: str) -> dict[str, str]:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.socket(family) as probe:
        probe.bind((address, 0))
        return {"MASTER_ADDR": address, "MASTER_PORT": str(probe.getsockname()[1])}


def _describe(code: int) -> str:
    return signal.Signals(code - SIGNALLED).name if code > SIGNALLED else f"exit code {code}"
