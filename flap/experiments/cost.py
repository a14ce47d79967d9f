"""GFLOPs of a row's audio encoder under its mask."""

from pathlib import Path

import torch

from flap.core.config import load_section
from flap.flops.count import encoder_gflops
from flap.model.audio_encoder import AudioEncoder
from flap.model.config import EncoderConfig
from flap.model.masking import draw_mask
from flap.pretrain.config import PretrainConfig

_BATCH = 8  # windows, as in the paper


def row_gflops(variant: Path) -> float:
    """GFLOPs of one forward pass of eight windows.

    Args:
        variant: the run's parameters, as `pipeline.commands.variant` wrote them.
    """
    encoder = load_section(variant, "encoder", EncoderConfig)
    mask = load_section(variant, "pretrain", PretrainConfig).mask
    keep_1K = draw_mask(mask, encoder.grid, 1, torch.Generator().manual_seed(0))
    return encoder_gflops(AudioEncoder(encoder), _BATCH, keep_1K)
