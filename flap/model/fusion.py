"""Feature fusion of LS-CLAP in the ViT's patch embedding (section 6.4 of the paper).

A clip longer than the window has four channels: the whole clip resized to the window, and a crop
from its front, middle and back third (`windows.fusion_window`).

1. Channel 0 goes through the same projection as without fusion.
2. Channels 1 to 3 go through a convolution whose kernel is three times as long. Joined along time,
   their outputs cover the same grid.
3. Attentional feature fusion weighs the two.

Masking follows the patch embedding. So in a longer clip, visible tokens contain some information
on masked patches, through the crops and the attention's mean over the grid. In other clips they
contain none, as without fusion.
"""

import torch
from torch import nn
from torch.nn import functional as F

from flap.model.audio_encoder import PatchEmbedding

_CROPS = 3
_REDUCTION = 4


class FusedPatchEmbedding(PatchEmbedding):
    """(B, 4, T, F) → (B, N, D). Only clips longer than the window are fused."""

    def __init__(self, patch: int, width: int) -> None:
        super().__init__(patch, width)
        long_patch = (_CROPS * patch, patch)
        self.local_proj = nn.Conv2d(1, width, kernel_size=long_patch, stride=long_patch)
        self.fusion = AttentionalFusion(width)

    def forward(self, mel_BCTF: torch.Tensor, longer_B: torch.Tensor | None = None) -> torch.Tensor:
        if longer_B is None or mel_BCTF.shape[1] != 1 + _CROPS:
            raise ValueError(
                "a model with feature fusion needs windows of 4 channels, and is_longer for each "
                f"clip; got {mel_BCTF.shape[1]} channels, is_longer {longer_B}"
            )
        grid_BDMK = self.proj(mel_BCTF[:, :1])  # M time steps, K frequencies
        rows_L = longer_B.nonzero()[:, 0]
        if self.training and not len(rows_L):  # so that every parameter has a gradient
            rows_L = torch.randint(len(mel_BCTF), (1,)).to(grid_BDMK.device)
        if len(rows_L):
            global_LDMK = grid_BDMK[rows_L]
            local_LDMK = self._local(mel_BCTF[rows_L, 1:], steps=global_LDMK.shape[2])
            fused_LDMK = self.fusion(global_LDMK, local_LDMK).to(grid_BDMK.dtype)
            grid_BDMK = grid_BDMK.index_copy(0, rows_L, fused_LDMK)
        return grid_BDMK.flatten(2).transpose(1, 2)

    def _local(self, crops_LCTF: torch.Tensor, steps: int) -> torch.Tensor:
        """The crops joined along time, cut or zero-padded to the grid's `steps`."""
        each_CDMK = self.local_proj(crops_LCTF.flatten(0, 1).unsqueeze(1))
        joined_LDMK = each_CDMK.unflatten(0, (-1, _CROPS)).transpose(1, 2).flatten(2, 3)
        return F.pad(joined_LDMK, (0, 0, 0, steps - joined_LDMK.shape[2]))


class AttentionalFusion(nn.Module):
    """AFF on (B, D, M, K): 2 · w · x + 2 · (1 - w) · r, w = sigmoid(local(x + r) + global(x + r)).

    The batch statistics are over the longer clips of one rank, as in LS-CLAP.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.local_attention = nn.Sequential(*_bottleneck(width))
        self.global_attention = nn.Sequential(nn.AdaptiveAvgPool2d(1), *_bottleneck(width))

    def forward(self, x_BDMK: torch.Tensor, r_BDMK: torch.Tensor) -> torch.Tensor:
        both_BDMK = x_BDMK + r_BDMK
        if self.training and len(both_BDMK) == 1:  # a single pooled value has no variance
            both_BDMK = both_BDMK.expand(2, -1, -1, -1)
        weights = self.local_attention(both_BDMK) + self.global_attention(both_BDMK)
        weights_BDMK = weights[: len(x_BDMK)].sigmoid()
        return 2 * x_BDMK * weights_BDMK + 2 * r_BDMK * (1 - weights_BDMK)


def _bottleneck(width: int) -> list[nn.Module]:
    """1 x 1 convolutions D → D/4 → D with batch norm."""
    inner = width // _REDUCTION
    return [
        nn.Conv2d(width, inner, kernel_size=1),
        nn.BatchNorm2d(inner),
        nn.ReLU(),
        nn.Conv2d(inner, width, kernel_size=1),
        nn.BatchNorm2d(width),
    ]
