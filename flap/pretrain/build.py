"""Builds the model and the tokenizer of a training run, with the initial audio weights."""

from pathlib import Path

import pandas as pd
import torch
from transformers import PreTrainedTokenizerBase

from flap.model.config import EncoderConfig, ModelConfig, WeightsConfig
from flap.model.flap import FlapModel, build_flap
from flap.model.import_weights import ImportReport, import_weights
from flap.model.text_encoder import build_tokenizer
from flap.pretrain.config import PretrainConfig


def build_model(
    config: PretrainConfig,
    encoder: EncoderConfig,
    model_config: ModelConfig,
    training: pd.DataFrame,
    tagger: Path,
) -> tuple[FlapModel, PreTrainedTokenizerBase, ImportReport | None]:
    """Model and tokenizer, the same on every rank since all randomness comes from `config.seed`.

    Args:
        training: training clips; a tokenizer from scratch learns its vocabulary on `captions`.
        tagger: folder of the tagger, the initial audio encoder with audio_weights: tagger.

    Returns:
        The model, the tokenizer, and the report of imported weights if there are any.

    Raises:
        UserError: weights or a text encoder cannot be loaded.
    """
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
