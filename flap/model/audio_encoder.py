"""Audio encoder: the ViT of MAViL and AudioMAE, log-mel (B, C, T, F) → tokens (B, 1 + N, D).

Modules are named as in the released state dicts (`patch_embed.proj`, `blocks.0.attn.qkv`).
Positions are added before masking. Only visible tokens go through the blocks, which makes FLAP
fast.
"""

import torch
from torch import nn

from flap.model.config import EncoderConfig
from flap.model.transformer import NORM_EPS, Blocks, initialise, sincos_positions


class AudioEncoder(nn.Module):
    """ViT over the patches of a log-mel window; `EncoderConfig` sets its size."""

    pos_embed: torch.Tensor

    def __init__(self, config: EncoderConfig, patch_embed: "PatchEmbedding | None" = None) -> None:
        super().__init__()
        self.config = config
        self.patch_embed = patch_embed or PatchEmbedding(config.patch, config.width)
        self.cls_token = nn.Parameter(torch.empty(1, 1, config.width))
        self.register_buffer("pos_embed", sincos_positions(config.grid, config.width))
        self.blocks = Blocks(config.depth, config.width, config.heads)
        self.norm = nn.LayerNorm(config.width, eps=NORM_EPS)
        self.apply(initialise)
        self.initialise_cls()

    def initialise_cls(self) -> None:
        nn.init.normal_(self.cls_token, std=0.02)

    def forward(
        self,
        mel_BCTF: torch.Tensor,
        keep_BK: torch.Tensor | None = None,
        longer_B: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Tokens after the last norm, cls token first: (B, 1 + N, D), or (V · B, 1 + K, D) masked.

        Args:
            mel_BCTF: un-normalised log-mel windows of the configured size, C = 1, or C = 4 with
                feature fusion.
            keep_BK: indices of the visible tokens, from `flap.model.masking`, (V · B, K). Row
                v · B + b is view v of clip b. None keeps all tokens.
            longer_B: whether each clip is longer than its window; only feature fusion uses it.
        """
        tokens_BND = self.patch_embed(self.normalise(mel_BCTF), longer_B) + self.pos_embed[:, 1:]
        if keep_BK is not None:
            tokens_BND = visible_tokens(tokens_BND, keep_BK)
        cls_B1D = (self.cls_token + self.pos_embed[:, :1]).expand(len(tokens_BND), -1, -1)
        return self.norm(self.blocks(torch.cat([cls_B1D, tokens_BND], dim=1)))

    def normalise(self, mel_BCTF: torch.Tensor) -> torch.Tensor:
        """(x - mean) / (2 · std), the convention of AudioMAE."""
        return (mel_BCTF - self.config.mel_mean) / (2 * self.config.mel_std)


class PatchEmbedding(nn.Module):
    """Patches of channel 0: (B, C, T, F) → (B, N, D), with token index t · n_freq + f."""

    def __init__(self, patch: int, width: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(1, width, kernel_size=patch, stride=patch)

    def forward(self, mel_BCTF: torch.Tensor, longer_B: torch.Tensor | None = None) -> torch.Tensor:
        return self.proj(mel_BCTF[:, :1]).flatten(2).transpose(1, 2)


def visible_tokens(tokens_BND: torch.Tensor, keep_BK: torch.Tensor) -> torch.Tensor:
    """The visible tokens of each view, (B, N, D) → (V · B, K, D), without copies of the others."""
    batch, _, width = tokens_BND.shape
    keep_VBKD = keep_BK.unflatten(0, (-1, batch))[..., None].expand(-1, -1, -1, width)
    tokens_VBND = tokens_BND.expand(len(keep_VBKD), -1, -1, -1)
    return tokens_VBND.gather(2, keep_VBKD).flatten(0, 1)


def pool(tokens_BND: torch.Tensor) -> torch.Tensor:
    """Instance embedding (B, D): the mean over the visible patch tokens, without the cls token."""
    return tokens_BND[:, 1:].mean(dim=1)
