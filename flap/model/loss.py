"""Contrastive loss, equation 1 of the paper, in both directions and averaged."""

import torch
from torch.nn import functional as F


def contrastive_loss(
    audio_BE: torch.Tensor, text_BE: torch.Tensor, logit_scale: torch.Tensor
) -> torch.Tensor:
    """Symmetric InfoNCE of L2-normalised pairs; row i of both sides belongs together.

    Computed in float32 also under autocast: bf16 logits of scale 100 would round by 0.5.

    Args:
        audio_BE: (B, E), or (V · B, E) for V views, row v · B + b a view of clip b: each view
            is contrasted with all texts, and the views' losses are averaged.
        logit_scale: ln(1/τ), τ the temperature of equation 1.
    """
    with torch.autocast(audio_BE.device.type, enabled=False):
        scale, text_BE = logit_scale.float().exp(), text_BE.float()
        right_B = torch.arange(len(text_BE), device=text_BE.device)
        losses = []
        for view_BE in audio_BE.float().split(len(text_BE)):
            logits_BB = scale * view_BE @ text_BE.T
            audio_to_text = F.cross_entropy(logits_BB, right_B)
            text_to_audio = F.cross_entropy(logits_BB.T, right_B)
            losses.append((audio_to_text + text_to_audio) / 2)
    return torch.stack(losses).mean()
