"""The processes of a training run: set-up from torchrun's environment, and collectives."""

import hashlib
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist

from flap.training import RENDEZVOUS_FOLDER

_DRAIN_SECONDS = 0.2


@dataclass(frozen=True)
class World:
    """The processes of a run, seen from this process."""

    rank: int
    world_size: int
    device: torch.device

    @property
    def is_first(self) -> bool:
        return self.rank == 0


@contextmanager
def world_from_environment() -> Iterator[World]:
    """Join the process group that torchrun describes, and leave the group at the end.

    The backend is NCCL on GPUs and gloo on CPUs. Without torchrun's variables, the world is this
    process alone, without a process group.
    """
    cuda = torch.cuda.is_available()
    device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0"))) if cuda else None
    if device:
        torch.cuda.set_device(device)
    if "RANK" not in os.environ:
        yield World(0, 1, device or torch.device("cpu"))
        return
    dist.init_process_group("nccl" if cuda else "gloo", init_method=_init_method())
    try:
        yield World(dist.get_rank(), dist.get_world_size(), device or torch.device("cpu"))
    finally:
        # Gloo's threads need Python's GIL to free their last tensors. An object that destroys the
        # group, such as DDP, holds the GIL while it waits for those threads: a deadlock. So the
        # threads get time to finish first.
        time.sleep(_DRAIN_SECONDS)
        dist.destroy_process_group()


@contextmanager
def first_rank_first(world: World) -> Iterator[None]:
    """Run the block on the first rank, then on all others."""
    if world.world_size > 1 and not world.is_first:
        dist.barrier()
    yield
    if world.world_size > 1 and world.is_first:
        dist.barrier()


def is_same_on_all_ranks(text: str, world: World) -> bool:
    """Whether all ranks pass the same text. Every rank must call this, and gets the same answer."""
    if world.world_size == 1:
        return True
    number = int.from_bytes(hashlib.sha256(text.encode()).digest()[:6])
    least, most = (torch.tensor(number, device=world.device) for _ in range(2))
    dist.all_reduce(least, dist.ReduceOp.MIN)
    dist.all_reduce(most, dist.ReduceOp.MAX)
    return bool(least == most)


def _init_method() -> str:
    """The URL at which the ranks meet.

    On one machine the URL names a file, since a port would be open to other users. Each restart
    uses a new file, because the old file holds the addresses of dead ranks.
    """
    folder = os.environ.get(RENDEZVOUS_FOLDER)
    if not folder:
        return "env://"
    attempt = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")
    numbers = f"rank={os.environ['RANK']}&world_size={os.environ['WORLD_SIZE']}"
    return f"file://{folder}/ranks-{attempt}?{numbers}"


class _GatherRows(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, rows_BE: torch.Tensor) -> torch.Tensor:
        gathered = [torch.empty_like(rows_BE) for _ in range(dist.get_world_size())]
        dist.all_gather(gathered, rows_BE.contiguous())
        return torch.cat(gathered)

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> torch.Tensor:
        (gradient_GE,) = gradients
        total_GE = gradient_GE.contiguous().clone()
        dist.all_reduce(total_GE)
        return total_GE.chunk(dist.get_world_size())[dist.get_rank()]


def mean_over_ranks(value: torch.Tensor) -> torch.Tensor:
    """The mean of `value` over all ranks, detached from the graph."""
    value = value.detach().clone()
    if dist.is_initialized() and dist.get_world_size() > 1:
        dist.all_reduce(value)
        value /= dist.get_world_size()
    return value


def get_rank() -> int:
    """The rank of this process; 0 without a process group."""
    return dist.get_rank() if dist.is_initialized() else 0


def gather_rows(rows_BE: torch.Tensor) -> torch.Tensor:
    """The rows of all ranks in rank order, (W · B, E).

    The gradient of a rank's rows is the sum over the losses of all ranks.
    """
    if not dist.is_initialized() or dist.get_world_size() == 1:
        return rows_BE
    return _GatherRows.apply(rows_BE)  # type: ignore[no-untyped-call]
