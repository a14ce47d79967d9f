"""World as processes of their own on this machine, for tests."""

import os
from collections.abc import Callable
from typing import Any

import torch
import torch.multiprocessing as mp

from flap.training.distributed import world_from_environment


def on_ranks(world_size: int, function: Callable[..., None], *arguments: Any) -> None:
    """Call `function(world, *arguments)` on each rank of a gloo group, one thread each."""
    port = torch.distributed.TCPStore("127.0.0.1", 0, 1, is_master=True).port
    given = (world_size, port, function, arguments)
    mp.start_processes(_on_rank, given, nprocs=world_size, start_method="forkserver")


def _on_rank(
    rank: int, world_size: int, port: int, function: Callable[..., None], arguments: tuple[Any, ...]
) -> None:
    os.environ |= {
        "RANK": str(rank),
        "WORLD_SIZE": str(world_size),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
    }
    torch.set_num_threads(1)
    with world_from_environment() as world:
        function(world, *arguments)
