"""Ranks: set-up from torchrun's environment, and a gather that gradients flow through."""

import hashlib
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist

from flap.training import RANKS_FOLDER

_DRAIN_SECONDS = 0.2


@dataclass(frozen=True)
class Ranks:
    """This process among all of them."""

    rank: int
    world_size: int
    device: torch.device

    @property
    def is_first(self) -> bool:
        return self.rank == 0


@contextmanager
def ranks_from_environment() -> Iterator[Ranks]:
    """Join the process group that torchrun describes (NCCL on GPUs, else gloo); leave at the end.

    Without torchrun's variables the process is alone and no group is made.
    """
    cuda = torch.cuda.is_available()
    device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0"))) if cuda else None
    if device:
        torch.cuda.set_device(device)
    if "RANK" not in os.environ:
        yield Ranks(0, 1, device or torch.device("cpu"))
        return
    dist.init_process_group("nccl" if cuda else "gloo", init_method=_meeting_place())
    try:
        yield Ranks(dist.get_rank(), dist.get_world_size(), device or torch.device("cpu"))
    finally:
        # Gloo's threads let go of the last tensors, for which they need the interpreter's lock.
        # Whoever frees the group, DDP for one, holds that lock and would wait for them for ever.
        time.sleep(_DRAIN_SECONDS)
        dist.destroy_process_group()


@contextmanager
def first_rank_first(ranks: Ranks) -> Iterator[None]:
    """Around what the first rank does for all: the others come to the block when it has left it."""
    if ranks.world_size > 1 and not ranks.is_first:
        dist.barrier()
    yield
    if ranks.world_size > 1 and ranks.is_first:
        dist.barrier()


def is_same_on_all_ranks(text: str, ranks: Ranks) -> bool:
    """Whether every rank calls this with the same text; every rank gets the same answer."""
    if ranks.world_size == 1:
        return True
    number = int.from_bytes(hashlib.sha256(text.encode()).digest()[:6])
    least, most = (torch.tensor(number, device=ranks.device) for _ in range(2))
    dist.all_reduce(least, dist.ReduceOp.MIN)
    dist.all_reduce(most, dist.ReduceOp.MAX)
    return bool(least == most)


def _meeting_place() -> str:
    """Ranks of one machine meet in a file of the launcher's folder; a port would be open to all.

    A restart's ranks meet elsewhere: in the file stand the dead ones' addresses.
    """
    folder = os.environ.get(RANKS_FOLDER)
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
    """The mean of every rank's `value`; no gradient flows through it."""
    value = value.detach().clone()
    if dist.is_initialized() and dist.get_world_size() > 1:
        dist.all_reduce(value)
        value /= dist.get_world_size()
    return value


def own_rank() -> int:
    """This process's number, 0 if it is alone."""
    return dist.get_rank() if dist.is_initialized() else 0


def gather_rows(rows_BE: torch.Tensor) -> torch.Tensor:
    """Rows of all ranks in rank order (W·B, E); the gradients of every rank's loss reach them."""
    if not dist.is_initialized() or dist.get_world_size() == 1:
        return rows_BE
    return _GatherRows.apply(rows_BE)  # type: ignore[no-untyped-call]
