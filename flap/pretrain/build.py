"""A fresh FLAP for a training run: tokenizer, text encoder, and where the audio encoder starts."""

from pathlib import Path

import pandas as pd
import torch
from transformers import PreTrainedTokenizerBase

from flap.errors import UserError
from flap.model.config import EncoderConfig, ModelConfig
from flap.model.flap import Flap
from flap.model.tagger import load_tagger
from flap.model.text_encoder import build_tokenizer
from flap.pretrain.config import PretrainConfig


def build(
    config: PretrainConfig,
    encoder: EncoderConfig,
    model_config: ModelConfig,
    training: pd.DataFrame,
    tagger: Path,
) -> tuple[Flap, PreTrainedTokenizerBase]:
    """Model and tokenizer, the same on every rank: all that is drawn comes from the seed."""
    torch.manual_seed(config.seed)
    captions = (caption for captions in training["captions"] for caption in captions)
    tokenizer = build_tokenizer(model_config.text, captions)
    model = Flap(encoder, model_config)
    if config.audio_weights == "tagger":
        _start_from_tagger(model, tagger)
    return model, tokenizer


def _start_from_tagger(model: Flap, folder: Path) -> None:
    """Copy the tagger's encoder; only its head is left behind and only our `norm` stays fresh."""
    tagger = load_tagger(folder).model
    if tagger.config != model.audio_encoder.config:
        raise UserError(
            f"{folder}: the tagger's encoder differs from section 'encoder'; "
            "rerun the tagger or set pretrain.audio_weights: scratch"
        )
    missing, unexpected = model.audio_encoder.load_state_dict(tagger.state_dict(), strict=False)
    assert {name.split(".")[0] for name in missing} <= {"norm"}, missing
    assert {name.split(".")[0] for name in unexpected} <= {"fc_norm", "head"}, unexpected
