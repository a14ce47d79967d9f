"""Audio decoder: visible tokens → the masked patches of the spectrogram (equation 2).

1. The encoder's tokens are projected to the width of the decoder.
2. A learned [MASK] token fills the masked places, and all tokens are put in grid order.
3. Fixed 2-D sin-cos positions are added, and a Transformer decodes the tokens.
4. A linear head predicts the P values of each patch.
"""

import torch
from torch import nn

from flap.model.config import DecoderConfig, EncoderConfig
from flap.model.loss import at_least_float32
from flap.model.transformer import NORM_EPS, Blocks, initialise, sincos_positions

_VARIANCE_EPS = 1e-6  # as in MAE, for patches with a single value


class AudioDecoder(nn.Module):
    """Transformer over all tokens of the grid; `DecoderConfig` sets its size."""

    pos_embed: torch.Tensor

    def __init__(self, config: DecoderConfig, encoder: EncoderConfig) -> None:
        super().__init__()
        self.config, self.patch, self.grid = config, encoder.patch, encoder.grid
        self.embed = nn.Linear(encoder.width, config.width)
        self.mask_token = nn.Parameter(torch.empty(1, 1, config.width))
        self.register_buffer("pos_embed", sincos_positions(encoder.grid, config.width))
        self.blocks = Blocks(config.depth, config.width, config.heads)
        self.norm = nn.LayerNorm(config.width, eps=NORM_EPS)
        self.pred = nn.Linear(config.width, encoder.patch**2)
        self.apply(initialise)
        self.initialise_mask_token()

    def initialise_mask_token(self) -> None:
        nn.init.normal_(self.mask_token, std=0.02)

    def forward(self, tokens_BKD: torch.Tensor, keep_BK: torch.Tensor) -> torch.Tensor:
        """Predicted patches (B, N, P).

        Args:
            tokens_BKD: the encoder's output, cls token first, (B, 1 + K, D).
            keep_BK: the mask that the encoder used.
        """
        embedded_BKE = self.embed(tokens_BKD)
        cls_B1E, visible_BKE = embedded_BKE[:, :1], embedded_BKE[:, 1:]
        n_tokens = self.pos_embed.shape[1] - 1
        index_BKE = keep_BK[:, :, None].expand_as(visible_BKE)
        full_BNE = self.mask_token.to(visible_BKE.dtype).expand(len(keep_BK), n_tokens, -1)
        full_BNE = full_BNE.scatter(1, index_BKE, visible_BKE)
        decoded_BNE = self.blocks(torch.cat([cls_B1E, full_BNE], dim=1) + self.pos_embed)
        return self.pred(self.norm(decoded_BNE))[:, 1:]

    def loss(
        self, predicted_BNP: torch.Tensor, mel_BTF: torch.Tensor, keep_BK: torch.Tensor
    ) -> torch.Tensor:
        """Equation 2, in float32 or higher.

        Args:
            predicted_BNP: predictions for V views of each clip, (V · B, N, P).
            mel_BTF: normalised windows of the B clips, as the encoder sees them.
            keep_BK: masks of the views, (V · B, K).
        """
        target_BNP = patches(at_least_float32(mel_BTF), self.patch)
        if self.config.normalise_patches:
            mean, variance = target_BNP.mean(-1, keepdim=True), target_BNP.var(-1, keepdim=True)
            target_BNP = (target_BNP - mean) / (variance + _VARIANCE_EPS).sqrt()
        views = len(keep_BK) // len(mel_BTF)
        return reconstruction_loss(
            at_least_float32(predicted_BNP), target_BNP.repeat(views, 1, 1), keep_BK
        )


def reconstruction_loss(
    predicted_BNP: torch.Tensor, target_BNP: torch.Tensor, keep_BK: torch.Tensor
) -> torch.Tensor:
    """Mean squared error over the masked patches: those whose index is not in `keep_BK`."""
    masked_BN = torch.ones_like(target_BNP[..., 0]).scatter(1, keep_BK, 0)
    error_BN = (predicted_BNP - target_BNP).square().mean(dim=-1)
    return (error_BN * masked_BN).sum() / masked_BN.sum()


def patches(mel_BTF: torch.Tensor, patch: int) -> torch.Tensor:
    """(B, T, F) → patches in token order, (B, N, P); the values of a patch are row by row."""
    grid = mel_BTF.unflatten(1, (-1, patch)).unflatten(3, (-1, patch))
    return grid.transpose(2, 3).flatten(3).flatten(1, 2)
