"""What all sections share: sizes, the towers, masks, and clips and captions to train on."""

import copy
import math
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from transformers import PreTrainedTokenizerBase

from flap.audio.config import AudioConfig
from flap.core.config import load_section
from flap.model.config import EncoderConfig, ModelConfig, ScratchText
from flap.model.device import default_device
from flap.model.flap import FlapModel, build_flap
from flap.model.text_encoder import build_tokenizer
from flap.model.windows import WindowBatch
from flap.pretrain.config import PretrainConfig

PARAMS = Path("params.paper.yaml")
MASKS: dict[str, dict[str, Any]] = {
    "unmasked": {"kind": "none"},
    "1d": {"kind": "1d", "ratio": 0.4},
    "2d": {"kind": "2d", "time_ratio": 0.2, "freq_ratio": 0.2, "members": "independent"},
}
LEAST_TOKENS, SPECIAL_TOKENS, WORDS = 10, 2, 300


@dataclass(frozen=True)
class Setting:
    """Sizes of everything, by default those of the paper."""

    tiny: bool = False
    fusion: bool = False
    batch: int = 256  # pairs
    big_batch: int = 2304
    tokens: int = 40  # of the longest caption
    long_tokens: int = 77
    warm_up: int = 3
    steps: int = 10
    corpus: int = 2048  # clips on the disk
    loader_steps: int = 64
    loader_workers: int = 8
    precise_batch: int = 16
    waveforms: int = 256
    ranked_clips: int = 10_000

    @cached_property
    def device(self) -> torch.device:
        return torch.device("cuda", 0) if default_device().type == "cuda" else default_device()

    @cached_property
    def encoder(self) -> EncoderConfig:
        paper = load_section(PARAMS, "encoder", EncoderConfig)
        small = {"clip_frames": 128, "width": 64, "depth": 1, "heads": 1}
        return paper.model_copy(update=small) if self.tiny else paper

    @cached_property
    def model(self) -> ModelConfig:
        paper = load_section(PARAMS, "model", ModelConfig)
        changes: dict[str, Any] = {"fusion": self.fusion}
        if self.tiny:
            small = {"width": 64, "depth": 1, "heads": 1}
            changes["decoder"] = paper.decoder.model_copy(update=small)
        width, depth = (64, 1) if self.tiny else (768, 12)
        text = ScratchText(
            kind="scratch",
            vocabulary=2000 if self.tiny else 50265,
            width=width,
            depth=depth,
            heads=width // 64,
            dropout=0.1,
            pooling=paper.text.pooling,
            max_tokens=paper.text.max_tokens,
        )
        return paper.model_copy(update=changes | {"text": text})

    @cached_property
    def audio(self) -> AudioConfig:
        return load_section(PARAMS, "audio", AudioConfig)

    @cached_property
    def tokenizer(self) -> PreTrainedTokenizerBase:
        return build_tokenizer(self.model.text, [" ".join(_words())])

    def pretrain(self, mask: str, batch: int, **changes: Any) -> PretrainConfig:
        """Section `pretrain` as in the paper, with enough epochs never to end."""
        section = load_section(PARAMS, "pretrain", PretrainConfig).model_dump()
        section |= {"mask": MASKS[mask], "batch": batch, "streams": math.gcd(batch, 64)}
        section |= {"epochs": 2**20, "loader_workers": self.loader_workers}
        return PretrainConfig.model_validate(section | changes)

    def fresh_model(self, *, with_decoder: bool = False, dropout: bool = True) -> FlapModel:
        """A model on the CPU, each time the same."""
        model = self.model
        if not dropout:
            text = model.text.model_copy(update={"dropout": 0.0})
            model = model.model_copy(update={"text": text})
        return copy.deepcopy(_model(self.encoder, model, with_decoder))

    def clips(self, count: int, tokens: int) -> pd.DataFrame:
        """What training asks of clips that it does not read, a caption each."""
        captions = [[caption] for caption in captions_of(count, tokens)]
        return pd.DataFrame({"clip_id": range(count), "captions": captions, "path": "memory"})

    def windows(self, count: int) -> WindowBatch:
        """Noise like log-mels of clips that are no longer than the window, on the CPU."""
        channels = 4 if self.fusion else 1
        some = torch.randn(min(count, 64), channels, self.encoder.clip_frames, self.encoder.n_mels)
        some = some * self.encoder.mel_std + self.encoder.mel_mean
        mel_BCTF = some.repeat(-(-count // len(some)), 1, 1, 1)[:count]
        return WindowBatch(mel_BCTF, torch.zeros(count, dtype=torch.bool))


TINY = Setting(
    tiny=True,
    batch=8,
    big_batch=20,
    tokens=16,
    warm_up=1,
    steps=2,
    corpus=64,
    loader_steps=4,
    loader_workers=1,
    precise_batch=4,
    waveforms=2,
    ranked_clips=50,
)


def captions_of(count: int, tokens: int) -> list[str]:
    """Captions of 10 tokens to `tokens`, of which the first has all; a word is a token."""
    rng = np.random.default_rng(0)
    sizes = rng.integers(LEAST_TOKENS, tokens + 1, count)
    sizes[0] = tokens
    words = _words()
    return [" ".join(rng.choice(words, size - SPECIAL_TOKENS)) for size in sizes]


def _words() -> list[str]:
    syllables = [first + second for first in "bdfgklmnprst" for second in "aeiou"]
    return [syllables[i % 60] + syllables[i // 60] for i in range(WORDS)]


@lru_cache
def _model(encoder: EncoderConfig, model: ModelConfig, with_decoder: bool) -> FlapModel:
    torch.manual_seed(0)
    return build_flap(encoder, model, with_decoder=with_decoder)
