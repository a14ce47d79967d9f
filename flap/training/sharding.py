"""Training with a part of the model on each rank (FSDP2), where `FLAP_SHARDING` asks for it.

`none`, the default, is DDP. By `model` parameters, gradients and the optimiser's state are
divided over all ranks, and a block's parameters are whole on a rank only while it computes.
Gradients are means over ranks both ways, so results differ by rounding only. A process that is
alone holds all.
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
from flap.training.distributed import Ranks, mean_over_ranks
from flap.training.parallel import Parallel, Replicated

_VARIABLE = "FLAP_SHARDING"
_Tensors = Sequence[torch.Tensor]


def parallel_from_environment(
    model: FlapModel, average: FlapModel | None, ranks: Ranks
) -> Parallel:
    """`model`, on its device, shared as FLAP_SHARDING says; its average, if any, is as well.

    Raises:
        UserError: FLAP_SHARDING is neither `none` nor `model`.
    """
    chosen = os.environ.get(_VARIABLE) or "none"
    if chosen not in ("none", "model"):
        raise UserError(f"{_VARIABLE}={chosen}: expected none or model")
    if chosen == "none" or ranks.world_size == 1:
        return Replicated(model, ranks)
    if average is not None:
        shard(average)
    return Sharded(model, ranks)


class Sharded(Parallel):
    """A part of every tensor on each rank, by FSDP2.

    Scalars, of which the logit scale is one, cannot be sharded: each rank holds them, and their
    gradients are averaged here.
    """

    def __init__(self, model: FlapModel, ranks: Ranks) -> None:
        super().__init__(model, ranks)
        shard(model)

    @property
    def towers(self) -> Callable[..., FlapOutput]:
        return self.model

    @property
    def evaluates(self) -> bool:
        return True  # without its part no rank could compute

    @contextmanager
    def pass_of(self, *, last: bool) -> Iterator[None]:
        """Gradients are summed whole on each rank, and over ranks after the last pass alone."""
        root = self.model
        assert isinstance(root, FSDPModule)
        root.set_requires_gradient_sync(last)
        root.set_is_last_backward(last)
        yield
        if last:
            self._complete_gradients()

    def idle(self, module: nn.Module) -> torch.Tensor:
        """Not in the graph: there a sharded module's parameters are not whole."""
        return torch.zeros((), device=self.ranks.device)

    def clip(self, limit: float) -> torch.Tensor:
        scalars, shards = _scalars_apart(self.model.parameters())
        square = get_total_norm(_gradients(shards)).square()
        dist.all_reduce(square)
        norm = (square + get_total_norm(_gradients(scalars)).square()).sqrt()
        for weights in (scalars, shards):
            clip_grads_with_norm_(weights, limit, norm)
        return norm

    def whole(self, model: FlapModel) -> FlapModel:
        options = StateDictOptions(full_state_dict=True, cpu_offload=True)
        state = get_model_state_dict(model, options=options)
        whole = FlapModel(model.config)
        if self.ranks.is_first:
            whole.load_state_dict(state)
        return whole.eval()  # type: ignore[no-untyped-call]

    @torch.no_grad()
    def _complete_gradients(self) -> None:
        for weight in self.model.parameters():
            if not weight.requires_grad:
                continue
            if weight.grad is None:
                weight.grad = torch.zeros_like(weight)
            elif weight.ndim == 0:
                weight.grad = mean_over_ranks(weight.grad)
        # As under DDP, batch statistics are the first rank's.
        for module in self.model.modules():
            if isinstance(module, nn.BatchNorm2d):
                for buffer in module.buffers():
                    dist.broadcast(buffer, 0)


def shard(model: FlapModel) -> None:
    """Shard each Transformer block of `model`, and the rest as one; frees the other ranks' parts.

    Blocks are the members of the outermost lists of modules: of the audio encoder, the decoder,
    and of any text encoder of transformers.
    """
    scalars = {weight for weight in model.parameters() if weight.ndim == 0}
    for block in _blocks(model):
        fully_shard(block, reshard_after_forward=True)
    # The default keeps what runs first whole; so are parameters shards between any two passes.
    fully_shard(model, reshard_after_forward=True, ignored_params=scalars)
    for method in ("get_audio_features", "get_text_features"):
        register_fsdp_forward_method(model, method)


def moving_average(decay: float) -> Callable[[_Tensors, _Tensors, Any], None]:
    """The `multi_avg_fn` of an exponential average, which works on each rank's own shards."""

    @torch.no_grad()
    def update(averages: _Tensors, weights: _Tensors, _: Any) -> None:
        torch._foreach_lerp_(_local(averages), _local(weights), 1 - decay)

    return update


def parameter_groups(model: nn.Module) -> list[dict[str, Any]]:
    """What an optimiser trains; scalars apart, since one fused update takes shards or none."""
    trained = [weight for weight in model.parameters() if weight.requires_grad]
    scalars, others = _scalars_apart(trained)
    return [{"params": weights} for weights in (others, scalars) if weights]


def _blocks(module: nn.Module) -> Iterator[nn.Module]:
    for child in module.children():
        if isinstance(child, nn.ModuleList):
            yield from child
        else:
            yield from _blocks(child)


def _scalars_apart(
    weights: Iterable[nn.Parameter],
) -> tuple[list[nn.Parameter], list[nn.Parameter]]:
    weights = list(weights)
    return [w for w in weights if w.ndim == 0], [w for w in weights if w.ndim]


def _gradients(weights: Sequence[nn.Parameter]) -> list[torch.Tensor]:
    """This rank's parts of the gradients there are."""
    return _local([weight.grad for weight in weights if weight.grad is not None])


def _local(tensors: _Tensors) -> list[torch.Tensor]:
    """This rank's part of each."""
    return [t.to_local() if isinstance(t, DTensor) else t for t in tensors]
