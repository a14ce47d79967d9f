"""The environment → torchrun: one process, one node, or several nodes.

Topology changes no result, so it comes from the environment and not from params.yaml:

    FLAP_NPROC   processes on this node (default: one a GPU, or one)
    FLAP_NNODES  nodes (default 1); with more, FLAP_HEAD=host:port is where they meet
"""

import os
import sys

from flap.errors import UserError
from pipeline.stage import exit_with_parent, report_errors


def command(module: str, arguments: list[str]) -> list[str]:
    """The torchrun command line for `python -m module arguments`."""
    nodes = os.environ.get("FLAP_NNODES", "1")
    where = ["--standalone"]
    if nodes != "1":
        if "FLAP_HEAD" not in os.environ:
            raise UserError("FLAP_NNODES is set: set FLAP_HEAD=host:port of the first node too")
        head = os.environ["FLAP_HEAD"]
        where = [f"--nnodes={nodes}", "--rdzv-backend=c10d", f"--rdzv-endpoint={head}"]
    processes = os.environ.get("FLAP_NPROC") or ("gpu" if _has_gpu() else "1")
    torchrun = [sys.executable, "-m", "torch.distributed.run", *where]
    return [*torchrun, f"--nproc-per-node={processes}", "-m", module, *arguments]


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
    torchrun = command(module, arguments)
    exit_with_parent()
    os.execv(sys.executable, torchrun)


if __name__ == "__main__":
    with report_errors():
        main()
