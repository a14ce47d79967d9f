"""Model FLOPs of a step: forward and backward pass of the audio encoder, text encoder and decoder.

A copy of the model on fake tensors is counted, so counting changes neither results nor random
state. A multiply-add counts as two FLOPs. Not counted are recomputations that save memory
(GradCache's first pass, gradient checkpointing), and parts that make up at most about 1 % of a
step: the products of the logits, the optimiser, feature fusion.
"""

import copy
import math
from collections import Counter
from functools import cached_property
from typing import Any, NamedTuple

import torch
from torch import nn
from torch._subclasses.fake_tensor import DataDependentOutputException, FakeTensorMode
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from flap.model.flap import FlapModel

_Sizes = dict[str, tuple[int, ...]]


class _Shape(NamedTuple):
    """The sizes that determine the FLOPs of a pair."""

    views: int
    kept: int | None  # audio tokens that the mask keeps; None without a mask
    tokens: int | None  # text tokens; None without text


class StepFlops:
    """Records the shapes of a model's training passes (those with gradients) and counts FLOPs."""

    def __init__(self, model: FlapModel) -> None:
        self._model = model
        self._pairs: Counter[_Shape] = Counter()
        self._countable = True
        self._audio_flops: dict[tuple[int, int | None, bool], int] = {}
        model.register_forward_pre_hook(self._record, with_kwargs=True)

    def take(self) -> float:
        """FLOPs of this rank's training passes since the last call.

        NaN for a text encoder whose operations depend on values of tensors: fake tensors have none.
        """
        pairs, self._pairs = self._pairs, Counter()
        try:
            if self._countable:
                return sum(n * (self._audio(s) + self._text(s)) for s, n in pairs.items())
        except DataDependentOutputException:
            self._countable = False
        return math.nan

    def _record(self, module: nn.Module, arguments: Any, inputs: dict[str, torch.Tensor]) -> None:
        if not (torch.is_grad_enabled() and module.training):
            return
        pairs, keep, ids = (inputs.get(n) for n in ("input_features", "keep", "input_ids"))
        assert pairs is not None
        shape = _Shape(
            views=1 if keep is None else len(keep) // len(pairs),
            kept=None if keep is None else keep.shape[1],
            tokens=None if ids is None else ids.shape[1],
        )
        self._pairs[shape] += len(pairs)

    def _audio(self, shape: _Shape) -> int:
        """FLOPs of all views of one window. Without text the loss is reconstruction only."""
        views, kept, tokens = shape
        key = (views, kept, tokens is None)
        if key not in self._audio_flops:
            encoder = self._model.config.encoder
            sizes: _Sizes = {"input_features": (1, 1, encoder.clip_frames, encoder.n_mels)}
            if kept is not None:
                sizes["keep"] = (views, kept)
            outputs = ["reconstruction_loss"] + ["audio_embeds"] * (tokens is not None)
            self._audio_flops[key] = self._count(sizes, outputs)
        return self._audio_flops[key]

    def _text(self, shape: _Shape) -> int:
        """FLOPs of one caption, extrapolated from captions of 2, 3 and 4 tokens."""
        if shape.tokens is None:
            return 0
        at_two, at_three, at_four = self._text_at_2_3_4
        slope, bend = at_three - at_two, at_four - 2 * at_three + at_two
        beyond = shape.tokens - 2
        return at_two + beyond * slope + beyond * (beyond - 1) // 2 * bend

    @cached_property
    def _text_at_2_3_4(self) -> list[int]:
        """FLOPs of captions of 2, 3 and 4 tokens: they are quadratic in the number of tokens."""
        return [self._count({"input_ids": (1, n)}, ["text_embeds"]) for n in (2, 3, 4)]

    def _count(self, sizes: _Sizes, outputs: list[str]) -> int:
        """FLOPs of a forward pass with inputs of these sizes, and of the gradient of `outputs`."""
        fake, model = self._fake_model
        # The counter does not see inside of fused attention, so the math kernel is used.
        with fake, torch.enable_grad(), sdpa_kernel(SDPBackend.MATH):
            dtypes = {"input_features": torch.float32}
            inputs = {n: torch.ones(s, dtype=dtypes.get(n, torch.long)) for n, s in sizes.items()}
            with FlopCounterMode(display=False) as counter:
                output = model(**inputs)
                losses = [output[name].sum() for name in outputs if name in output]
                torch.stack(losses).sum().backward()
        return int(counter.get_total_flops())

    @cached_property
    def _fake_model(self) -> tuple[FakeTensorMode, FlapModel]:
        """The model on fake tensors, without sharding, compilation or recomputation."""
        config = copy.deepcopy(self._model.config)
        config.fusion = False
        trained = {name: weight.requires_grad for name, weight in self._model.named_parameters()}
        fake = FakeTensorMode()
        with fake:
            model = FlapModel(config)
        for name, weight in model.named_parameters():
            weight.requires_grad_(trained[name])
        return fake, model
