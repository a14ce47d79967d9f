"""The Transformer of encoder and decoder, its fixed positions, and the initialisation of weights.

Modules are named as in the released ViT state dicts (`norm1`, `attn.qkv`, `mlp.fc1`).
"""

import math

import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

NORM_EPS = 1e-6
_MLP_RATIO = 4


class Blocks(nn.ModuleList):
    """A stack of blocks, (B, N, D) → (B, N, D).

    With `gradient_checkpointing`, which transformers' `gradient_checkpointing_enable` sets, only
    the input of each block is stored; the backward pass recomputes the block.
    """

    def __init__(self, depth: int, width: int, heads: int) -> None:
        super().__init__(Block(width, heads) for _ in range(depth))
        self.gradient_checkpointing = False

    def forward(self, tokens_BND: torch.Tensor) -> torch.Tensor:
        for block in self:
            if self.gradient_checkpointing and self.training:
                tokens_BND = checkpoint(block, tokens_BND, use_reentrant=False)
            else:
                tokens_BND = block(tokens_BND)
        return tokens_BND


class Block(nn.Module):
    """Pre-norm Transformer block."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width, eps=NORM_EPS)
        self.attn = Attention(width, heads)
        self.norm2 = nn.LayerNorm(width, eps=NORM_EPS)
        self.mlp = Mlp(width)

    def forward(self, tokens_BND: torch.Tensor) -> torch.Tensor:
        tokens_BND = tokens_BND + self.attn(self.norm1(tokens_BND))
        return tokens_BND + self.mlp(self.norm2(tokens_BND))


class Attention(nn.Module):
    """Multi-head self-attention with qkv bias, by PyTorch's fused kernel."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)

    def forward(self, tokens_BND: torch.Tensor) -> torch.Tensor:
        # Three products, since the kernel is slower on strided slices of one (B, N, 3 · D).
        thirds = zip(self.qkv.weight.chunk(3), self.qkv.bias.chunk(3), strict=True)
        query, key, value = (  # each (B, heads, N, D / heads)
            F.linear(tokens_BND, weight, bias).unflatten(2, (self.heads, -1)).transpose(1, 2)
            for weight, bias in thirds
        )
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
    """Fixed 2-D sin-cos table (1, 1 + N, D): half of the channels for time, half for frequency.

    Row 0, the position of the cls token, is zero. Released checkpoints replace this table.
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


def initialise(module: nn.Module) -> None:
    """Initialise a module as MAE does; for `nn.Module.apply`.

    Xavier is used for linear layers, and for convolutions viewed as linear layers. torch.nn.init
    gets full tensors, never views: transformers marks tensors loaded from a checkpoint, and makes
    torch.nn.init skip them.
    """
    if isinstance(module, nn.Linear | nn.Conv2d):
        bound = math.sqrt(6 / (len(module.weight) + module.weight[0].numel()))
        nn.init.uniform_(module.weight, -bound, bound)
        assert module.bias is not None
        nn.init.zeros_(module.bias)
    elif isinstance(module, nn.LayerNorm | nn.BatchNorm2d):
        nn.init.ones_(module.weight)
        nn.init.zeros_(module.bias)
    if isinstance(module, nn.BatchNorm2d):
        nn.init.zeros_(module.running_mean)  # type: ignore[arg-type]
        nn.init.ones_(module.running_var)  # type: ignore[arg-type]
        nn.init.zeros_(module.num_batches_tracked)  # type: ignore[arg-type]
