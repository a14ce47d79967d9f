"""GradCache (Gao et al. 2021): contrastive gradients of a batch that exceeds memory.

The contrastive loss needs the embeddings of all pairs at once, but not the activations of their
encoders. So a step makes two passes over its micro-batches:

1. The first pass embeds each micro-batch without a graph and keeps only the embeddings.
2. The loss over all embeddings gives the gradient with respect to each embedding.
3. The second pass embeds each micro-batch again with a graph, and propagates the gradients of the
   embeddings to the parameters.

Both passes must use the same masks and random seeds. Batch norm updates its running statistics in
the second pass only.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import nn

from flap.model.flap import FlapOutput
from flap.pretrain.objective import global_contrastive_loss


@dataclass(frozen=True)
class CachedContrast:
    """This rank's share of the contrastive loss, and its gradients for each micro-batch."""

    loss: torch.Tensor
    audio: tuple[torch.Tensor, ...]  # gradients of audio embeddings, (V · M, E) a micro-batch
    text: tuple[torch.Tensor, ...]  # gradients of text embeddings, (M, E) a micro-batch
    logit_scale: torch.Tensor  # gradient of the logit scale, divided by the micro-batches

    @classmethod
    def from_outputs(cls, outputs: Sequence[FlapOutput]) -> "CachedContrast":
        """Loss and gradients for the outputs of all micro-batches, in order, without graphs."""
        sizes = [len(_text(output)) for output in outputs]
        audio_VBE = torch.cat([_audio(o).unflatten(0, (-1, len(_text(o)))) for o in outputs], dim=1)
        text_BE = torch.cat([_text(output) for output in outputs])
        leaves = (audio_VBE, text_BE, _scale(outputs[0]).detach().clone())
        with torch.enable_grad():
            audio_VBE, text_BE, scale = (leaf.requires_grad_() for leaf in leaves)
            loss = global_contrastive_loss(
                FlapOutput(
                    audio_embeds=audio_VBE.flatten(0, 1), text_embeds=text_BE, logit_scale=scale
                )
            )
            d_audio_VBE, d_text_BE, d_scale = torch.autograd.grad(loss, (audio_VBE, text_BE, scale))
        audio = tuple(part.flatten(0, 1) for part in d_audio_VBE.split(sizes, dim=1))
        return cls(loss.detach(), audio, d_text_BE.split(sizes), d_scale / len(outputs))

    def surrogate(self, output: FlapOutput, number: int) -> torch.Tensor:
        """A scalar with the gradient that micro-batch `number` contributes to the loss's.

        Args:
            output: the second pass of that micro-batch, with a graph.
        """
        return (
            (_audio(output) * self.audio[number]).sum()
            + (_text(output) * self.text[number]).sum()
            + _scale(output) * self.logit_scale
        )


@contextmanager
def batch_norm_statistics_frozen(model: nn.Module) -> Iterator[None]:
    """Batch norm uses batch statistics in the block, and leaves its running statistics alone."""
    norms = [module for module in model.modules() if isinstance(module, nn.BatchNorm2d)]
    for norm in norms:
        norm.track_running_stats = False
    try:
        yield
    finally:
        for norm in norms:
            norm.track_running_stats = True


def _audio(output: FlapOutput) -> torch.Tensor:
    assert output.audio_embeds is not None
    return output.audio_embeds


def _text(output: FlapOutput) -> torch.Tensor:
    assert output.text_embeds is not None
    return output.text_embeds


def _scale(output: FlapOutput) -> torch.Tensor:
    assert output.logit_scale is not None
    return output.logit_scale
