"""Runs a function on several ranks, each a process on this machine."""

import os
from collections.abc import Callable
from multiprocessing import get_context
from typing import Any

import torch
import torch.multiprocessing as mp

from flap.training.distributed import world_from_environment

# The fork server imports these modules once, instead of each rank.
get_context("forkserver").set_forkserver_preload(["flap.pretrain.loop"])


def on_ranks(world_size: int, function: Callable[..., None], *arguments: Any) -> None:
    """Call `function(world, *arguments)` on each rank of a gloo group, with one thread a rank."""
    run_ranks(world_size, _in_group, function, arguments)


def run_ranks(world_size: int, function: Callable[..., None], *arguments: Any) -> None:
    """Call `function(*arguments)` in `world_size` processes with torchrun's variables."""
    port = torch.distributed.TCPStore("127.0.0.1", 0, 1, is_master=True).port
    given = (world_size, port, function, arguments)
    mp.start_processes(_run_rank, given, nprocs=world_size, start_method="forkserver")


def _in_group(function: Callable[..., None], arguments: tuple[Any, ...]) -> None:
    with world_from_environment() as world:
        function(world, *arguments)


def _run_rank(
    rank: int, world_size: int, port: int, function: Callable[..., None], arguments: tuple[Any, ...]
) -> None:
    os.environ |= {
        "RANK": str(rank),
        "WORLD_SIZE": str(world_size),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
    }
    torch.set_num_threads(1)
    function(*arguments)
