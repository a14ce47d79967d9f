"""Sharded training by FSDP2: each rank holds a part of the model.

`FLAP_SHARDING` chooses: `none`, the default, is DDP; `model` shards parameters, gradients and
optimiser state over all ranks. FSDP2 gathers the parameters of a block only while the block
computes. Both average gradients over ranks, so their results differ by rounding only. A run of
one process is never sharded.
"""

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.checkpoint.state_dict import StateDictOptions, get_model_state_dict
from torch.distributed.fsdp import FSDPModule, fully_shard, register_fsdp_forward_method
from torch.distributed.tensor import DTensor
from torch.nn.utils import clip_grads_with_norm_, get_total_norm

from flap.core.errors import UserError
from flap.model.flap import FlapModel, FlapOutput
from flap.training.distributed import World, mean_over_ranks
from flap.training.parallel import Parallel, Replicated

_VARIABLE = "FLAP_SHARDING"
_Tensors = Sequence[torch.Tensor]


def parallel_from_environment(
    model: FlapModel, average: FlapModel | None, world: World
) -> Parallel:
    """`model` with the parallelism that FLAP_SHARDING chooses.

    Args:
        model: on the device of this rank.
        average: moving average of the model's weights; sharded as the model is.

    Raises:
        UserError: FLAP_SHARDING is neither `none` nor `model`.
    """
    chosen = os.environ.get(_VARIABLE) or "none"
    if chosen not in ("none", "model"):
        raise UserError(f"{_VARIABLE}={chosen}: expected none or model")
    if chosen == "none" or world.world_size == 1:
        return Replicated(model, world)
    if average is not None:
        shard(average)
    return Sharded(model, world)


class Sharded(Parallel):
    """A part of every parameter on each rank, by FSDP2.

    FSDP2 cannot shard scalars such as the logit scale. Each rank holds a copy of them, and this
    class averages their gradients.
    """

    def __init__(self, model: FlapModel, world: World) -> None:
        super().__init__(model, world)
        shard(model)

    @property
    def wrapped_model(self) -> Callable[..., FlapOutput]:
        return self.model

    @property
    def evaluates(self) -> bool:
        return True  # a forward pass needs the parameters of every rank

    @contextmanager
    def accumulate(self, *, last: bool) -> Iterator[None]:
        """Each rank sums full gradients; the last micro-batch reduces them over ranks."""
        root = self.model
        assert isinstance(root, FSDPModule)
        root.set_requires_gradient_sync(last)
        root.set_is_last_backward(last)
        yield
        if last:
            self._complete_gradients()

    def zero_loss(self, module: nn.Module) -> torch.Tensor:
        """Outside of the graph, where the parameters of an unused module stay sharded."""
        return torch.zeros((), device=self.world.device)

    def clip_gradients(self, limit: float) -> torch.Tensor:
        scalars, shards = _split_scalars(self.model.parameters())
        square = get_total_norm(_gradients(shards)).square()
        dist.all_reduce(square)
        norm = (square + get_total_norm(_gradients(scalars)).square()).sqrt()
        for weights in (scalars, shards):
            clip_grads_with_norm_(weights, limit, norm)
        return norm

    def full_model(self, model: FlapModel) -> FlapModel:
        options = StateDictOptions(full_state_dict=True, cpu_offload=True)
        state = get_model_state_dict(model, options=options)
        full = FlapModel(model.config)
        if self.world.is_first:
            full.load_state_dict(state)
        return full.eval()  # type: ignore[no-untyped-call]

    @torch.no_grad()
    def _complete_gradients(self) -> None:
        for weight in self.model.parameters():
            if not weight.requires_grad:
                continue
            if weight.grad is None:
                weight.grad = torch.zeros_like(weight)
            elif weight.ndim == 0:
                weight.grad = mean_over_ranks(weight.grad)
        # As with DDP, all ranks take the batch-norm statistics of the first rank.
        for module in self.model.modules():
            if isinstance(module, nn.BatchNorm2d):
                for buffer in module.buffers():
                    dist.broadcast(buffer, 0)


def shard(model: FlapModel) -> None:
    """Shard `model` in place: each Transformer block on its own, and the rest as one unit.

    A block is a member of an outermost `ModuleList`. The audio encoder, the decoder and the text
    encoders of transformers keep their blocks in such lists.
    """
    scalars = {weight for weight in model.parameters() if weight.ndim == 0}
    for block in _blocks(model):
        fully_shard(block, reshard_after_forward=True)
    # By default FSDP2 leaves the root unsharded after its forward pass. With `True`, all
    # parameters are shards between two passes.
    fully_shard(model, reshard_after_forward=True, ignored_params=scalars)
    for method in ("get_audio_features", "get_text_features"):
        register_fsdp_forward_method(model, method)


def moving_average(decay: float) -> Callable[[_Tensors, _Tensors, Any], None]:
    """The `multi_avg_fn` of an exponential moving average; averages the shards of each rank."""

    @torch.no_grad()
    def update(averages: _Tensors, weights: _Tensors, _: Any) -> None:
        torch._foreach_lerp_(_local(averages), _local(weights), 1 - decay)

    return update


def parameter_groups(model: nn.Module) -> list[dict[str, Any]]:
    """Parameter groups for the optimiser.

    Scalars form a group of their own: a multi-tensor update cannot mix sharded and plain tensors.
    """
    trained = [weight for weight in model.parameters() if weight.requires_grad]
    scalars, others = _split_scalars(trained)
    return [{"params": weights} for weights in (others, scalars) if weights]


def _blocks(module: nn.Module) -> Iterator[nn.Module]:
    for child in module.children():
        if isinstance(child, nn.ModuleList):
            yield from child
        else:
            yield from _blocks(child)


def _split_scalars(
    weights: Iterable[nn.Parameter],
) -> tuple[list[nn.Parameter], list[nn.Parameter]]:
    weights = list(weights)
    return [w for w in weights if w.ndim == 0], [w for w in weights if w.ndim]


def _gradients(weights: Sequence[nn.Parameter]) -> list[torch.Tensor]:
    """This rank's shards of all gradients that exist."""
    return _local([weight.grad for weight in weights if weight.grad is not None])


def _local(tensors: _Tensors) -> list[torch.Tensor]:
    """This rank's shard of each tensor; plain tensors as they are."""
    return [t.to_local() if isinstance(t, DTensor) else t for t in tensors]
