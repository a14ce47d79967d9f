"""The gradient of a loss over more pairs than one pass holds in memory.

The contrastive loss needs the embeddings of all pairs at once, but not what their encoders
computed on the way. So (GradCache, Gao et al. 2021):

1. Micro-batch by micro-batch is embedded, and nothing but the embeddings is kept.
2. The loss of all of them gives its gradient by each embedding.
3. Each micro-batch is embedded once more, now to be differentiated, and the embeddings'
   gradients flow on to the parameters.

The second pass has to repeat the first: same masks, same seeds, and batch norm's running
statistics count a batch once.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import nn

from flap.model.flap import FlapOutput
from flap.pretrain.objective import global_contrast


@dataclass(frozen=True)
class CachedContrast:
    """This rank's share of the contrastive loss, and its gradient, of all micro-batches."""

    loss: torch.Tensor
    audio: tuple[torch.Tensor, ...]  # a micro-batch's (V · M, E): gradient by its embeddings
    text: tuple[torch.Tensor, ...]  # (M, E)
    logit_scale: torch.Tensor

    @classmethod
    def of(cls, outputs: Sequence[FlapOutput]) -> "CachedContrast":
        """Of the micro-batches' outputs, in order, without graphs."""
        sizes = [len(_text(output)) for output in outputs]
        audio_VBE = torch.cat([_audio(o).unflatten(0, (-1, len(_text(o)))) for o in outputs], dim=1)
        text_BE = torch.cat([_text(output) for output in outputs])
        leaves = (audio_VBE, text_BE, _scale(outputs[0]).detach().clone())
        with torch.enable_grad():
            audio_VBE, text_BE, scale = (leaf.requires_grad_() for leaf in leaves)
            loss = global_contrast(
                FlapOutput(
                    audio_embeds=audio_VBE.flatten(0, 1), text_embeds=text_BE, logit_scale=scale
                )
            )
            by_audio, by_text, by_scale = torch.autograd.grad(loss, (audio_VBE, text_BE, scale))
        audio = tuple(part.flatten(0, 1) for part in by_audio.split(sizes, dim=1))
        return cls(loss.detach(), audio, by_text.split(sizes), by_scale / len(outputs))

    def surrogate(self, output: FlapOutput, part: int) -> torch.Tensor:
        """What has, by the parameters, the gradient that micro-batch `part` adds to the loss's."""
        return (
            (_audio(output) * self.audio[part]).sum()
            + (_text(output) * self.text[part]).sum()
            + _scale(output) * self.logit_scale
        )


@contextmanager
def running_statistics_kept(model: nn.Module) -> Iterator[None]:
    """Within the block batch norm normalises by the batch, and does not take note of it."""
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
