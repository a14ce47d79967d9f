"""Audio encoder: the ViT of MAViL and AudioMAE, log-mel (B, T, F) → tokens (B, 1 + N, D).

Module names are those of the released state dicts (`patch_embed.proj`, `blocks.0.attn.qkv`).
Positions are added before masking, and only visible tokens go through the blocks, which is
where FLAP's speed comes from.
"""

import torch
from torch import nn
from torch.nn import functional as F

from flap.model.config import EncoderConfig

_NORM_EPS = 1e-6
_MLP_RATIO = 4


class AudioEncoder(nn.Module):
    """ViT over the patches of a normalised log-mel; sizes by `EncoderConfig`."""

    pos_embed: torch.Tensor

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        self.config = config
        self.patch_embed = PatchEmbedding(config.patch, config.width)
        self.cls_token = nn.Parameter(torch.zeros(1, 1, config.width))
        self.register_buffer("pos_embed", sincos_positions(config.grid, config.width))
        self.blocks = nn.ModuleList(Block(config.width, config.heads) for _ in range(config.depth))
        self.norm = nn.LayerNorm(config.width, eps=_NORM_EPS)
        nn.init.normal_(self.cls_token, std=0.02)
        self.apply(_initialise)

    def forward(self, mel_BTF: torch.Tensor, keep_BK: torch.Tensor | None = None) -> torch.Tensor:
        """Tokens after the last norm, cls first: (B, 1 + N, D), or (B, 1 + K, D) if masked.

        Args:
            mel_BTF: normalised log-mel of exactly the configured window.
            keep_BK: indices of the tokens that stay visible, from `masking`; None keeps all.
        """
        tokens_BND = self.patch_embed(mel_BTF.unsqueeze(1)) + self.pos_embed[:, 1:]
        if keep_BK is not None:
            index_BKD = keep_BK[:, :, None].expand(-1, -1, tokens_BND.shape[2])
            tokens_BND = tokens_BND.gather(1, index_BKD)
        cls_B1D = (self.cls_token + self.pos_embed[:, :1]).expand(len(tokens_BND), -1, -1)
        tokens_BND = torch.cat([cls_B1D, tokens_BND], dim=1)
        for block in self.blocks:
            tokens_BND = block(tokens_BND)
        return self.norm(tokens_BND)

    def normalise(self, mel_BTF: torch.Tensor) -> torch.Tensor:
        """(x - mean) / (2 · std), AudioMAE's convention; padding becomes a constant."""
        return (mel_BTF - self.config.mel_mean) / (2 * self.config.mel_std)

    def instance(self, mel_BTF: torch.Tensor, keep_BK: torch.Tensor | None = None) -> torch.Tensor:
        """Instance embedding (B, D) of un-normalised windows: the mean over the visible patch
        tokens, cls left out.
        """
        return self(self.normalise(mel_BTF), keep_BK)[:, 1:].mean(dim=1)


def _initialise(module: nn.Module) -> None:
    """MAE's start: Xavier for linear maps, the patch projection taken as one of them."""
    if isinstance(module, nn.Linear | nn.Conv2d):
        nn.init.xavier_uniform_(module.weight.flatten(1))
        assert module.bias is not None
        nn.init.zeros_(module.bias)


class PatchEmbedding(nn.Module):
    """(B, 1, T, F) → (B, N, D), token index t · n_freq + f."""

    def __init__(self, patch: int, width: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(1, width, kernel_size=patch, stride=patch)

    def forward(self, mel_B1TF: torch.Tensor) -> torch.Tensor:
        return self.proj(mel_B1TF).flatten(2).transpose(1, 2)


class Block(nn.Module):
    """Pre-norm Transformer block."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width, eps=_NORM_EPS)
        self.attn = Attention(width, heads)
        self.norm2 = nn.LayerNorm(width, eps=_NORM_EPS)
        self.mlp = Mlp(width)

    def forward(self, tokens_BND: torch.Tensor) -> torch.Tensor:
        tokens_BND = tokens_BND + self.attn(self.norm1(tokens_BND))
        return tokens_BND + self.mlp(self.norm2(tokens_BND))


class Attention(nn.Module):
    """Multi-head self-attention with biased qkv, by PyTorch's fused kernel."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)

    def forward(self, tokens_BND: torch.Tensor) -> torch.Tensor:
        qkv = self.qkv(tokens_BND).unflatten(2, (3, self.heads, -1))
        query, key, value = qkv.permute(2, 0, 3, 1, 4)  # each (B, heads, N, D / heads)
        mixed = F.scaled_dot_product_attention(query, key, value)
        return self.proj(mixed.transpose(1, 2).flatten(2))


class Mlp(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(width, _MLP_RATIO * width)
        self.fc2 = nn.Linear(_MLP_RATIO * width, width)

    def forward(self, tokens_BND: torch.Tensor) -> torch.Tensor:
        return self.fc2(F.gelu(self.fc1(tokens_BND)))


def sincos_positions(grid: tuple[int, int], width: int) -> torch.Tensor:
    """Fixed 2-D sin-cos table (1, 1 + N, D): half the channels tell time, half frequency.

    Row 0, for cls, is zero. Released checkpoints bring tables of their own.
    """
    time, freq = torch.meshgrid(torch.arange(grid[0]), torch.arange(grid[1]), indexing="ij")
    quarter = width // 4
    rates = 10000.0 ** (-torch.arange(quarter) / quarter)
    parts = []
    for position in (time.flatten(), freq.flatten()):
        angles_NQ = position[:, None] * rates
        parts += [angles_NQ.sin(), angles_NQ.cos()]
    table_ND = torch.cat(parts, dim=1)
    return torch.cat([torch.zeros(1, width), table_ND]).unsqueeze(0)
