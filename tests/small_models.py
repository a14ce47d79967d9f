"""Small model configurations for tests, and inputs for them."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from flap.model.config import DecoderConfig, EncoderConfig, ModelConfig, ScratchText
from flap.model.flap import build_flap
from flap.model.text_encoder import build_tokenizer
from flap.processor.processor import build_processor

ENCODER = EncoderConfig(
    clip_frames=64, n_mels=32, mel_mean=-4.0, mel_std=4.5, patch=16, width=16, depth=2, heads=2
)
TEXT = ScratchText(
    kind="scratch",
    vocabulary=300,
    width=16,
    depth=1,
    heads=2,
    dropout=0.0,
    pooling="pooler",
    max_tokens=16,
)
DECODER = DecoderConfig(width=8, depth=1, heads=2, normalise_patches=True)
MODEL = ModelConfig(
    text=TEXT,
    fusion=False,
    decoder=DECODER,
    embedding=8,
    initial_temperature=0.07,
    max_logit_scale=math.log(100),
)
FUSED = MODEL.model_copy(update={"fusion": True})
CAPTIONS = ["A dog barks.", "Rain falls on a roof while a dog barks twice.", "A bell rings."]


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def mels(batch: int, channels: int = 1, seed: int = 0) -> torch.Tensor:
    """Random un-normalised windows for `ENCODER`."""
    shape = (batch, channels, ENCODER.clip_frames, ENCODER.n_mels)
    return torch.randn(shape, generator=generator(seed)) * 4 - 4


def save_untrained_flap(folder: Path, front_end: Mapping[str, Any]) -> Path:
    """A FLAP with random weights and its processor, saved as `pretrain` saves them."""
    torch.manual_seed(0)
    model = build_flap(ENCODER, MODEL, with_decoder=False)
    model.save_pretrained(folder)
    build_processor(model, build_tokenizer(TEXT, CAPTIONS), front_end).save_pretrained(folder)
    return folder
