"""FLOPs that a step's model needs: forward and backward pass of both towers and the decoder.

Counted on fake tensors, of a copy without weights, so that neither the run's numbers nor its
random state are touched. A multiply-add counts as two. Not counted is what is done twice to save
memory (GradCache's first pass, gradient checkpointing), nor what is a percent and less of a
step: the logits' products, the optimiser, feature fusion.
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
    """What a pair's FLOPs depend on; None stands for no mask, and for no text."""

    views: int
    kept: int | None
    tokens: int | None


class StepFlops:
    """Takes note of a model's training passes, those with gradients, by their shapes."""

    def __init__(self, model: FlapModel) -> None:
        self._model = model
        self._pairs: Counter[_Shape] = Counter()
        self._countable = True
        self._of_windows: dict[tuple[int, int | None, bool], int] = {}
        model.register_forward_pre_hook(self._note, with_kwargs=True)

    def take(self) -> float:
        """FLOPs of this rank's passes since the last call.

        NaN with a text encoder that asks for the values of tensors, which fake ones lack.
        """
        pairs, self._pairs = self._pairs, Counter()
        try:
            if self._countable:
                return sum(n * (self._audio(one) + self._text(one)) for one, n in pairs.items())
        except DataDependentOutputException:
            self._countable = False
        return math.nan

    def _note(self, module: nn.Module, arguments: Any, inputs: dict[str, torch.Tensor]) -> None:
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
        """Of one window's views. Without text nothing but reconstruction is minimised."""
        views, kept, tokens = shape
        key = (views, kept, tokens is None)
        if key not in self._of_windows:
            encoder = self._model.config.encoder
            sizes: _Sizes = {"input_features": (1, 1, encoder.clip_frames, encoder.n_mels)}
            if kept is not None:
                sizes["keep"] = (views, kept)
            minimised = ["reconstruction_loss"] + ["audio_embeds"] * (tokens is not None)
            self._of_windows[key] = self._count(sizes, minimised)
        return self._of_windows[key]

    def _text(self, shape: _Shape) -> int:
        """Of one caption."""
        if shape.tokens is None:
            return 0
        at_two, at_three, at_four = self._text_at_2_3_4
        slope, bend = at_three - at_two, at_four - 2 * at_three + at_two
        beyond = shape.tokens - 2
        return at_two + beyond * slope + beyond * (beyond - 1) // 2 * bend

    @cached_property
    def _text_at_2_3_4(self) -> list[int]:
        """Of captions of so many tokens: a Transformer's FLOPs are a quadratic of their number."""
        return [self._count({"input_ids": (1, n)}, ["text_embeds"]) for n in (2, 3, 4)]

    def _count(self, sizes: _Sizes, minimised: list[str]) -> int:
        """Of a pass with inputs of these sizes, and of its gradients for these outputs."""
        fake, twin = self._twin
        with fake, torch.enable_grad(), sdpa_kernel(SDPBackend.MATH):  # fused, it goes unseen
            dtypes = {"input_features": torch.float32}
            inputs = {n: torch.ones(s, dtype=dtypes.get(n, torch.long)) for n, s in sizes.items()}
            with FlopCounterMode(display=False) as counter:
                output = twin(**inputs)
                losses = [output[name].sum() for name in minimised if name in output]
                torch.stack(losses).sum().backward()
        return int(counter.get_total_flops())

    @cached_property
    def _twin(self) -> tuple[FakeTensorMode, FlapModel]:
        """The same model on fake tensors: not sharded, not compiled, nothing recomputed."""
        config = copy.deepcopy(self._model.config)
        config.fusion = False
        trained = {name: weight.requires_grad for name, weight in self._model.named_parameters()}
        fake = FakeTensorMode()
        with fake:
            twin = FlapModel(config)
        for name, weight in twin.named_parameters():
            weight.requires_grad_(trained[name])
        return fake, twin
