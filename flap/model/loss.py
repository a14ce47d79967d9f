"""Contrastive loss: equation 1 of the paper, averaged over both directions."""

import torch
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

_BLOCK_LOGITS = 2**20  # logits in memory at a time: 4 MiB in float32


def contrastive_loss(
    audio_BE: torch.Tensor,
    text_BE: torch.Tensor,
    logit_scale: torch.Tensor,
    *,
    all_audio_GE: torch.Tensor | None = None,
    all_text_GE: torch.Tensor | None = None,
    first: int = 0,
) -> torch.Tensor:
    """Symmetric InfoNCE of L2-normalised pairs: audio i and text i form a pair.

    The loss is computed in float32 or higher, also under autocast: bf16 would round logits of up
    to 100 by 0.5. A large batch is computed in blocks of logits, which the backward pass computes
    again. So memory does not grow with the square of the batch.

    Args:
        audio_BE: (B, E), or (V · B, E) for V views, with view v of clip b in row v · B + b. Each
            view is contrasted with all texts, and the losses of the views are averaged.
        text_BE: (B, E).
        logit_scale: ln(1/τ), τ the temperature of equation 1.
        all_audio_GE, all_text_GE: embeddings of the global batch of G pairs, (V · G, E) and
            (G, E). The B pairs are part of it, and the mean of the losses of all parts is the
            loss of the global batch. None: the B pairs are the global batch.
        first: position of the first of the B pairs in the global batch.
    """
    all_audio_GE = audio_BE if all_audio_GE is None else all_audio_GE
    all_text_GE = text_BE if all_text_GE is None else all_text_GE
    batch, global_batch, losses = len(text_BE), len(all_text_GE), []
    right_B = torch.arange(first, first + batch, device=text_BE.device)
    with torch.autocast(audio_BE.device.type, enabled=False):
        scale = at_least_float32(logit_scale).exp()
        for view_BE, all_view_GE in zip(
            audio_BE.split(batch), all_audio_GE.split(global_batch), strict=True
        ):
            losses += [
                _cross_entropy(view_BE, all_text_GE, scale, right_B),
                _cross_entropy(text_BE, all_view_GE, scale, right_B),
            ]
    return torch.stack(losses).mean()


def _cross_entropy(
    queries_BE: torch.Tensor, keys_GE: torch.Tensor, scale: torch.Tensor, right_B: torch.Tensor
) -> torch.Tensor:
    """Mean cross-entropy of the queries; `right_B` has the row of each query's key."""
    queries_BE, keys_GE = at_least_float32(queries_BE), at_least_float32(keys_GE)
    rows = max(1, _BLOCK_LOGITS // len(keys_GE))
    if rows >= len(queries_BE):
        return _block_sum(queries_BE, keys_GE, scale, right_B) / len(queries_BE)
    blocks = zip(queries_BE.split(rows), right_B.split(rows), strict=True)
    sums = [
        checkpoint(_block_sum, block, keys_GE, scale, right, use_reentrant=False)
        for block, right in blocks
    ]
    return torch.stack(sums).sum() / len(queries_BE)


def _block_sum(
    queries_RE: torch.Tensor, keys_GE: torch.Tensor, scale: torch.Tensor, right_R: torch.Tensor
) -> torch.Tensor:
    return F.cross_entropy(scale * queries_RE @ keys_GE.T, right_R, reduction="sum")


def at_least_float32(value: torch.Tensor) -> torch.Tensor:
    """`value` in float32; float64 stays float64."""
    return value.to(torch.promote_types(value.dtype, torch.float32))
