"""What training asks of a model on all ranks; here each rank holds the whole of it (DDP)."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from torch.nn.utils import clip_grad_norm_

from flap.model.flap import FlapModel, FlapOutput
from flap.training.distributed import Ranks


class Parallel(ABC):
    """A model on all ranks; every rank calls the same methods in the same order."""

    def __init__(self, model: FlapModel, ranks: Ranks) -> None:
        self.model, self.ranks = model, ranks

    @property
    @abstractmethod
    def towers(self) -> Callable[..., FlapOutput]:
        """The model, for a forward pass whose gradients become means over ranks."""

    @property
    @abstractmethod
    def evaluates(self) -> bool:
        """Whether this rank takes part in an evaluation."""

    @abstractmethod
    @contextmanager
    def pass_of(self, *, last: bool) -> Iterator[None]:
        """Around the forward and backward pass of a micro-batch.

        After a step's last one each parameter that is trained has its gradient.
        """

    @abstractmethod
    def idle(self, module: nn.Module) -> torch.Tensor:
        """Zero, to be added to a loss in which `module` has no part: its gradients are zero."""

    @abstractmethod
    def clip(self, limit: float) -> torch.Tensor:
        """Scale the gradients to a norm of at most `limit`; their norm before, over all ranks."""

    @abstractmethod
    def whole(self, model: FlapModel) -> FlapModel:
        """`model`, this one or its average, with all its parameters, to be saved by rank 0."""


class Replicated(Parallel):
    """The whole model on each rank, under DDP where there are several."""

    def __init__(self, model: FlapModel, ranks: Ranks) -> None:
        super().__init__(model, ranks)
        self._ddp = None
        if ranks.world_size > 1:
            devices = [ranks.device] if ranks.device.type == "cuda" else None
            self._ddp = DistributedDataParallel(model, device_ids=devices)

    @property
    def towers(self) -> Callable[..., FlapOutput]:
        return self._ddp or self.model

    @property
    def evaluates(self) -> bool:
        return self.ranks.is_first

    @contextmanager
    def pass_of(self, *, last: bool) -> Iterator[None]:
        if last or self._ddp is None:
            yield
        else:
            with self._ddp.no_sync():
                yield

    def idle(self, module: nn.Module) -> torch.Tensor:
        """In the graph, for DDP awaits a gradient of every parameter."""
        zero = torch.zeros((), device=self.ranks.device)
        return zero + 0 * sum(weight.sum() for weight in module.parameters())

    def clip(self, limit: float) -> torch.Tensor:
        return clip_grad_norm_(self.model.parameters(), limit)

    def whole(self, model: FlapModel) -> FlapModel:
        return model
