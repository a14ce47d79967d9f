"""Start training with torchrun, on one or several nodes, or with Ray Train on a cluster.

The topology changes no result, so it comes from the environment and not from params.yaml:

    FLAP_LAUNCHER      torchrun (default) or ray
    FLAP_NPROC         processes on this node (default: one for each GPU, or one)
    FLAP_NNODES        number of nodes (default 1), or min:max; the same on each node
    FLAP_HEAD          host:port of the first node
    FLAP_INTERFACE     network interface or its address (default: the one towards FLAP_HEAD)
    FLAP_MAX_RESTARTS  how often all workers restart after one died (default 5)

`dvc repro` starts this module on the first node; the other nodes run `make join`. In a Slurm step
of several nodes, FLAP_NNODES and FLAP_HEAD default to Slurm's values.

With FLAP_LAUNCHER=ray, the nodes are those of the cluster at RAY_ADDRESS. Without RAY_ADDRESS, a
cluster is started on this machine. FLAP_NPROC is then the number of processes on the whole cluster
(default: one for each GPU, or one).
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

_WAIT_SECONDS = 600  # for the first node to start, and for all nodes to join
_RESTARTS = "5"  # on two nodes, one death can cost two or three: each node detects it separately


def command(
    module: str, arguments: list[str], environ: Mapping[str, str], node: Topology, folder: str
) -> list[str]:
    """Arguments of torchrun that run `python -m module arguments` on this node.

    Args:
        folder: a private folder for torchrun's files.
    """
    # torchrun unpickles data from the endpoint, and a port would be open to the network: on one
    # node, the endpoint is a private file.
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
    """Run `python -m module arguments` in each rank of this node.

    Args:
        joins: join the run of another node instead of leading a run.

    Raises:
        UserError: a variable is missing or wrong, or the run could not continue.
    """
    exit_with_parent()
    chosen = os.environ.get("FLAP_LAUNCHER") or "torchrun"
    if chosen == "torchrun":
        _launch_torchrun(module, arguments, joins=joins)
    elif chosen == "ray":
        _launch_ray(module, arguments, joins=joins)
    else:
        raise UserError(f"FLAP_LAUNCHER={chosen}: expected one of torchrun, ray")


def _launch_torchrun(module: str, arguments: list[str], *, joins: bool) -> None:
    node = topology(os.environ, joins=joins)
    with TemporaryDirectory(prefix="flap-") as folder:
        torchrun = command(module, arguments, os.environ, node, folder)
        for variable in ("GLOO_SOCKET_IFNAME", "NCCL_SOCKET_IFNAME"):
            os.environ.setdefault(variable, node.interface.name)

        from pipeline.launch.elastic import run  # late, because torch is slow to import

        if node.head is None:
            os.environ[RENDEZVOUS_FOLDER] = folder
        run(torchrun)


def _launch_ray(module: str, arguments: list[str], *, joins: bool) -> None:
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
