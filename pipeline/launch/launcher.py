"""The environment → torchrun, on one node or several, or Ray Train, on a cluster.

Topology changes no result, so it comes from the environment and not from params.yaml:

    FLAP_LAUNCHER      torchrun (default) or ray
    FLAP_NPROC         processes on this node (default: one a GPU, or one)
    FLAP_NNODES        nodes (default 1), or min:max; the same on all
    FLAP_HEAD          host:port of the first node, where the others join it
    FLAP_INTERFACE     network interface or address to train over (default: towards FLAP_HEAD)
    FLAP_MAX_RESTARTS  how often workers start again after one died (default 5)

The first node runs this, by `dvc repro`; the others run `make join`. In a Slurm step of several
nodes, FLAP_NNODES and FLAP_HEAD are Slurm's unless they are set.

Ray has its nodes already: with FLAP_LAUNCHER=ray, FLAP_NPROC counts the processes on all of the
cluster at RAY_ADDRESS (default: one a GPU of it, or one); without it, a cluster is started here.
"""

import os
import sys
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory

from flap.core.errors import UserError, missing_extra
from flap.core.executor import ray_address
from flap.core.processes import exit_with_parent
from flap.training import RENDEZVOUS_FOLDER
from pipeline.launch.topology import Topology, topology

_WAIT_SECONDS = 600  # for the head to begin, and for all nodes to come
_RESTARTS = "5"  # on two nodes, one death can take two or three: each notices by itself


def command(
    module: str, arguments: list[str], environ: Mapping[str, str], node: Topology, folder: str
) -> list[str]:
    """The arguments of torchrun for `python -m module arguments` on this node.

    Args:
        folder: a private one for torchrun's files.
    """
    # torchrun unpickles what it finds at the endpoint. A port would be open to the network.
    endpoint, conf = f"{folder}/rendezvous", "store_type=file"
    if node.head:
        endpoint = node.head
        waits = f"join_timeout={_WAIT_SECONDS},read_timeout={_WAIT_SECONDS}"
        conf = f"is_host={int(node.is_head)},{waits}"
    processes = _number(environ, "FLAP_NPROC", least=1) or ("gpu" if _has_gpu() else "1")
    restarts = _number(environ, "FLAP_MAX_RESTARTS", least=0) or _RESTARTS
    return [
        f"--nnodes={node.nodes}",
        "--rdzv-backend=c10d",
        f"--rdzv-endpoint={endpoint}",
        f"--rdzv-conf={conf}",
        f"--log-dir={folder}",
        f"--local-addr={node.interface.address}",
        f"--nproc-per-node={processes}",
        f"--max-restarts={restarts}",
        "-m",
        module,
        *arguments,
    ]


def launch(module: str, arguments: list[str], *, joins: bool = False) -> None:
    """Run `python -m module arguments` on this node's ranks; `joins` another node's run or leads.

    Raises:
        UserError: a variable is missing or wrong, or the run could not go on.
    """
    exit_with_parent()
    chosen = os.environ.get("FLAP_LAUNCHER") or "torchrun"
    if chosen == "torchrun":
        _by_torchrun(module, arguments, joins=joins)
    elif chosen == "ray":
        _by_ray(module, arguments, joins=joins)
    else:
        raise UserError(f"FLAP_LAUNCHER={chosen}: expected one of torchrun, ray")


def _by_torchrun(module: str, arguments: list[str], *, joins: bool) -> None:
    node = topology(os.environ, joins=joins)
    with TemporaryDirectory(prefix="flap-") as folder:
        torchrun = command(module, arguments, os.environ, node, folder)
        for variable in ("GLOO_SOCKET_IFNAME", "NCCL_SOCKET_IFNAME"):
            os.environ.setdefault(variable, node.interface.name)

        from pipeline.launch.elastic import run  # torch loads after --help and errors

        if node.head is None:
            os.environ[RENDEZVOUS_FOLDER] = folder
        run(torchrun)


def _by_ray(module: str, arguments: list[str], *, joins: bool) -> None:
    if joins:
        raise UserError("FLAP_LAUNCHER=ray: nodes join Ray's cluster, by `ray start`, not a run")
    for variable in ("FLAP_NNODES", "FLAP_HEAD"):
        if os.environ.get(variable):
            raise UserError(f"{variable}: Ray chooses the nodes; unset it, or FLAP_LAUNCHER=ray")
    ranks = _number(os.environ, "FLAP_NPROC", least=1)
    restarts = _number(os.environ, "FLAP_MAX_RESTARTS", least=0) or _RESTARTS
    address = ray_address()
    try:
        from pipeline.launch.ray_rank import Stage
        from pipeline.launch.ray_train import run
    except ModuleNotFoundError as error:
        raise missing_extra("FLAP_LAUNCHER=ray", str(error.name), "ray") from None
    stage = Stage(module, arguments, str(Path.cwd()), dict(os.environ))
    run(stage, address, int(ranks) if ranks else None, int(restarts))


def _number(environ: Mapping[str, str], variable: str, *, least: int) -> str | None:
    value = environ.get(variable)
    if value and not (value.isdecimal() and int(value) >= least):
        raise UserError(f"{variable}={value}: a whole number from {least} is expected")
    return value or None


def _has_gpu() -> bool:
    import torch

    return torch.cuda.is_available()


def main() -> None:
    """`python -m pipeline.launch MODULE ARGUMENTS…`"""
    if len(sys.argv) < 2 or sys.argv[1] in ("-h", "--help"):
        print(f"usage: python -m pipeline.launch MODULE ARGUMENTS…\n\n{__doc__}")
        return
    module, *arguments = sys.argv[1:]
    if "--help" in arguments:
        os.execv(sys.executable, [sys.executable, "-m", module, *arguments])
    launch(module, arguments)
