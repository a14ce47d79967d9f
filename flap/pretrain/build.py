"""A fresh FLAP for a training run: tokenizer, towers, and where the audio encoder starts."""

from pathlib import Path

import pandas as pd
import torch
from transformers import PreTrainedTokenizerBase

from flap.model.config import EncoderConfig, ModelConfig, WeightsConfig
from flap.model.flap import FlapModel, build_flap
from flap.model.import_weights import ImportReport, import_weights
from flap.model.text_encoder import build_tokenizer
from flap.pretrain.config import PretrainConfig


def build(
    config: PretrainConfig,
    encoder: EncoderConfig,
    model_config: ModelConfig,
    training: pd.DataFrame,
    tagger: Path,
) -> tuple[FlapModel, PreTrainedTokenizerBase, ImportReport | None]:
    """Model and tokenizer, the same on every rank: all that is drawn comes from the seed."""
    torch.manual_seed(config.seed)
    captions = (caption for captions in training["captions"] for caption in captions)
    tokenizer = build_tokenizer(model_config.text, captions)
    model = build_flap(encoder, model_config, with_decoder=config.reconstruction_weight > 0)
    weights = config.audio_weights
    if weights == "tagger":
        weights = WeightsConfig(source=str(tagger), revision=None, sha256=None)
    report = None
    if isinstance(weights, WeightsConfig):
        report = import_weights(model.audio_encoder, weights)
    return model, tokenizer, report
