"""How several ranks train one model: the interface, and DDP, which replicates the model."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from torch.nn.utils import clip_grad_norm_

from flap.model.flap import FlapModel, FlapOutput
from flap.training.distributed import World


class Parallel(ABC):
    """A model on all ranks. Every rank calls the same methods in the same order."""

    def __init__(self, model: FlapModel, world: World) -> None:
        self.model, self.world = model, world

    @property
    @abstractmethod
    def wrapped_model(self) -> Callable[..., FlapOutput]:
        """The model for training passes: its gradients are averaged over ranks."""

    @property
    @abstractmethod
    def evaluates(self) -> bool:
        """Whether this rank takes part in evaluations."""

    @abstractmethod
    @contextmanager
    def accumulate(self, *, last: bool) -> Iterator[None]:
        """Context of a micro-batch's forward and backward pass.

        Gradients are averaged over ranks after the last micro-batch of a step only. Then each
        trained parameter has a gradient.
        """

    @abstractmethod
    def zero_loss(self, module: nn.Module) -> torch.Tensor:
        """A zero to add to a loss that does not use `module`, so that its gradients are zero."""

    @abstractmethod
    def clip_gradients(self, limit: float) -> torch.Tensor:
        """Scale the gradients to a global norm of at most `limit`; returns the norm before."""

    @abstractmethod
    def full_model(self, model: FlapModel) -> FlapModel:
        """`model` with all its parameters on rank 0, to be saved there.

        Args:
            model: the trained model, or the average of its weights.
        """


class Replicated(Parallel):
    """The full model on each rank. Several ranks use DDP."""

    def __init__(self, model: FlapModel, world: World) -> None:
        super().__init__(model, world)
        self._ddp = None
        if world.world_size > 1:
            devices = [world.device] if world.device.type == "cuda" else None
            self._ddp = DistributedDataParallel(model, device_ids=devices)

    @property
    def wrapped_model(self) -> Callable[..., FlapOutput]:
        return self._ddp or self.model

    @property
    def evaluates(self) -> bool:
        return self.world.is_first

    @contextmanager
    def accumulate(self, *, last: bool) -> Iterator[None]:
        if last or self._ddp is None:
            yield
        else:
            with self._ddp.no_sync():
                yield

    def zero_loss(self, module: nn.Module) -> torch.Tensor:
        """Part of the graph, since DDP waits for a gradient of every parameter."""
        zero = torch.zeros((), device=self.world.device)
        return zero + 0 * sum(weight.sum() for weight in module.parameters())

    def clip_gradients(self, limit: float) -> torch.Tensor:
        return clip_grad_norm_(self.model.parameters(), limit)

    def full_model(self, model: FlapModel) -> FlapModel:
        return model
