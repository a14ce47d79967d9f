"""Contrastive loss, equation 1 of the paper, in both directions and averaged."""

import torch
from torch.nn import functional as F


def contrastive_loss(
    audio_BE: torch.Tensor, text_BE: torch.Tensor, logit_scale: torch.Tensor
) -> torch.Tensor:
    """Symmetric InfoNCE of L2-normalised pairs; row i of both sides belongs together.

    Computed in float32 also under autocast: bf16 logits of scale 100 would round by 0.5.

    Args:
        logit_scale: ln(1/τ), τ the temperature of equation 1.
    """
    with torch.autocast(audio_BE.device.type, enabled=False):
        logits_BB = logit_scale.float().exp() * audio_BE.float() @ text_BE.float().T
        right_B = torch.arange(len(logits_BB), device=logits_BB.device)
        audio_to_text = F.cross_entropy(logits_BB, right_B)
        text_to_audio = F.cross_entropy(logits_BB.T, right_B)
    return (audio_to_text + text_to_audio) / 2
