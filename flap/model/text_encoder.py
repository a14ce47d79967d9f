"""Text encoder: token ids (B, L) → pooled embedding (B, D), by a transformers model.

The kind `pretrained` is any transformers encoder (RoBERTa-base in the paper). The kind `scratch`
is a new RoBERTa with a byte-level BPE vocabulary learned from the training captions.
"""

from collections.abc import Callable, Iterable
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
from tokenizers.trainers import BpeTrainer
from transformers import (
    AutoModel,
    AutoTokenizer,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    PreTrainedTokenizerFast,
    RobertaConfig,
    RobertaModel,
)
from transformers.modeling_outputs import BaseModelOutput

from flap.core.errors import UserError, first_line
from flap.model.config import PretrainedText, TextConfig

_SPECIAL = {"bos_token": "<s>", "pad_token": "<pad>", "eos_token": "</s>", "unk_token": "<unk>"}
_PAD_ID = list(_SPECIAL).index("pad_token")


def build_tokenizer(config: TextConfig, captions: Iterable[str]) -> PreTrainedTokenizerBase:
    """The tokenizer of the pretrained model, or a BPE tokenizer learned from `captions`.

    Raises:
        UserError: the pretrained tokenizer cannot be loaded.
    """
    if isinstance(config, PretrainedText):
        return _load(AutoTokenizer.from_pretrained, config.source, revision=config.revision)
    bpe = Tokenizer(models.BPE())
    bpe.normalizer = normalizers.Lowercase()
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    bpe.decoder = decoders.ByteLevel()
    trainer = BpeTrainer(
        vocab_size=config.vocabulary,
        special_tokens=list(_SPECIAL.values()),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    bpe.train_from_iterator(captions, trainer)
    begin, end = (_SPECIAL[name] for name in ("bos_token", "eos_token"))
    bpe.post_processor = processors.TemplateProcessing(
        single=f"{begin} $A {end}",
        special_tokens=[(token, bpe.token_to_id(token)) for token in (begin, end)],
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=bpe, model_max_length=config.max_tokens, **_SPECIAL
    )


def build_text_encoder(config: TextConfig) -> PreTrainedModel:
    """The pretrained encoder, or a new RoBERTa of the configured size.

    Raises:
        UserError: the pretrained encoder cannot be loaded, or lacks weights.
    """
    if isinstance(config, PretrainedText):
        model, report = _load(
            AutoModel.from_pretrained,
            config.source,
            revision=config.revision,
            use_safetensors=True,
            dtype=torch.float32,
            output_loading_info=True,
        )
        # RoBERTa-base has no pooler weights; LS-CLAP, too, initialises the pooler. All other
        # weights must be present.
        missing = sorted(name for name in report["missing_keys"] if "pooler." not in name)
        if missing:
            raise UserError(
                f"model.text.source: '{config.source}' lacks {len(missing)} tensors of its model "
                f"({missing[0]}, …); download it again or choose another model"
            )
        return encoder_half(model)
    return RobertaModel(
        RobertaConfig(
            vocab_size=config.vocabulary,
            hidden_size=config.width,
            num_hidden_layers=config.depth,
            num_attention_heads=config.heads,
            intermediate_size=4 * config.width,
            hidden_dropout_prob=config.dropout,
            attention_probs_dropout_prob=config.dropout,
            max_position_embeddings=config.max_tokens + _PAD_ID + 1,
            pad_token_id=_PAD_ID,
            bos_token_id=0,
            eos_token_id=2,
            type_vocab_size=1,
        )
    )


def encoder_half(model: PreTrainedModel) -> PreTrainedModel:
    """The encoder of an encoder-decoder model such as T5; any other model unchanged."""
    return model.get_encoder() if hasattr(model, "decoder") else model


def pool_text(
    output: BaseModelOutput, attention_mask_BL: torch.Tensor, pooling: str
) -> torch.Tensor:
    """Pool the output of a text encoder to (B, D).

    Args:
        pooling: `pooler` for the encoder's own pooler, `mean` for the mean over its tokens, `first`
            for its first token.

    Raises:
        UserError: the encoder has no pooler, but `pooling` is `pooler`.
    """
    tokens_BLD = output.last_hidden_state
    assert tokens_BLD is not None
    if pooling == "first":
        return tokens_BLD[:, 0]
    if pooling == "mean":
        weights_BL1 = attention_mask_BL[:, :, None].to(tokens_BLD.dtype)
        return (tokens_BLD * weights_BL1).sum(dim=1) / weights_BL1.sum(dim=1)
    pooled_BD = getattr(output, "pooler_output", None)
    if pooled_BD is None:
        raise UserError("model.text.pooling: this text encoder has no pooler; choose mean or first")
    return pooled_BD


def _load(load: Callable[..., Any], name: str, **options: Any) -> Any:
    try:
        return load(name, **options)
    except OSError as error:
        raise UserError(
            f"model.text.source: '{name}' is not a folder, and the hub did not provide it; copy "
            f"the checkpoint to a folder and name that folder ({first_line(error)})"
        ) from error


def tokenize(
    tokenizer: PreTrainedTokenizerBase, captions: list[str], max_tokens: int
) -> dict[str, torch.Tensor]:
    """`input_ids` and `attention_mask`, (B, L), padded to the longest, cut to `max_tokens`."""
    return dict(
        tokenizer(
            captions, padding=True, truncation=True, max_length=max_tokens, return_tensors="pt"
        )
    )
