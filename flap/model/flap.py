"""FLAP as a `transformers` model: embeds audio and text in a shared space.

    windows (B, C, T, F) ── audio encoder ── mean ── head ── normalise ──► (B, E)
    captions (B, L) ────── text encoder ── pooled ── head ── normalise ──► (B, E)

A model that trains reconstruction also has an audio decoder over the encoder's tokens. Importing
this module registers FLAP with the Auto classes of transformers.
"""

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F
from transformers import AutoModel, PreTrainedModel
from transformers.initialization import copy_
from transformers.modeling_outputs import BaseModelOutputWithPooling
from transformers.utils.generic import ModelOutput

from flap.model.audio_decoder import AudioDecoder
from flap.model.audio_encoder import AudioEncoder, pool
from flap.model.config import DecoderConfig, EncoderConfig, ModelConfig
from flap.model.flap_config import FlapConfig
from flap.model.fusion import FusedPatchEmbedding
from flap.model.loss import contrastive_loss
from flap.model.text_encoder import build_text_encoder, encoder_half, pool_text
from flap.model.transformer import initialise, sincos_positions


@dataclass
class FlapOutput(ModelOutput):
    """Output for B pairs, with V masked views of each clip (V = 1 without a mask)."""

    loss: torch.Tensor | None = None  # contrastive, over this batch and all its views
    audio_embeds: torch.Tensor | None = None  # (V · B, E), L2-normalised
    text_embeds: torch.Tensor | None = None  # (B, E), L2-normalised
    reconstruction_loss: torch.Tensor | None = None
    logit_scale: torch.Tensor | None = None  # ln(1/τ)

    @property
    def logits_per_audio(self) -> torch.Tensor:
        """Cosine similarities over temperature, (V · B, B)."""
        if self.audio_embeds is None or self.text_embeds is None:
            raise ValueError("logits need both input_features and input_ids as inputs of the model")
        assert self.logit_scale is not None
        return self.logit_scale.exp() * self.audio_embeds @ self.text_embeds.T

    @property
    def logits_per_text(self) -> torch.Tensor:
        return self.logits_per_audio.T


class FlapModel(PreTrainedModel):
    """Log-mel windows and captions → L2-normalised embeddings of width E.

    Projection heads (Linear-ReLU-Linear) and logit scale follow LS-CLAP: the scale starts at
    ln(1/0.07) and is clamped to [0, ln 100] after each step.
    """

    config_class = FlapConfig
    config: FlapConfig
    base_model_prefix = "flap"
    main_input_name = "input_features"
    supports_gradient_checkpointing = True
    _supports_sdpa = True
    # A model without a decoder ignores the decoder of a checkpoint.
    _keys_to_ignore_on_load_unexpected = (r"^audio_decoder\.",)  # type: ignore[assignment]

    def __init__(self, config: FlapConfig, text_encoder: PreTrainedModel | None = None) -> None:
        super().__init__(config)
        encoder = config.encoder
        fused = FusedPatchEmbedding(encoder.patch, encoder.width) if config.fusion else None
        self.audio_encoder = AudioEncoder(encoder, fused)
        self.text_encoder = text_encoder or encoder_half(AutoModel.from_config(config.text_config))
        self.audio_decoder = (
            AudioDecoder(DecoderConfig.model_validate(config.decoder_config), encoder)
            if config.decoder_config
            else None
        )
        self.audio_head = _head(encoder.width, config.projection_dim)
        self.text_head = _head(self.text_encoder.config.hidden_size, config.projection_dim)
        self.logit_scale = nn.Parameter(torch.tensor(math.log(1 / config.initial_temperature)))
        pooler = getattr(self.text_encoder, "pooler", None)
        if config.text_pooling != "pooler" and pooler is not None:
            pooler.requires_grad_(False)  # unused, and DDP would wait for its gradient
        self.post_init()  # type: ignore[no-untyped-call]

    def forward(
        self,
        input_features: torch.Tensor | None = None,
        input_ids: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        is_longer: torch.Tensor | None = None,
        keep: torch.Tensor | None = None,
        return_loss: bool = False,
        **_: Any,
    ) -> FlapOutput:
        """Embed windows, captions or both.

        Args:
            input_features: un-normalised log-mel windows (B, C, T, F), C = 1, or 4 with fusion.
            input_ids, attention_mask: tokenised captions (B, L).
            is_longer: (B,) whether each clip is longer than its window; required with fusion.
            keep: (V · B, K) indices of the visible tokens of V views, from `flap.model.masking`.
                A model with a decoder then computes `reconstruction_loss`.
            return_loss: whether to compute `loss`.

        Raises:
            ValueError: an input that is required is missing.
        """
        output = FlapOutput(logit_scale=self.logit_scale)
        if input_features is not None:
            tokens = self.audio_encoder(input_features, keep, is_longer)
            output.audio_embeds = self._project(self.audio_head, pool(tokens))
            if keep is not None and self.audio_decoder is not None:
                mel = self.audio_encoder.normalise(input_features[:, 0])
                predicted = self.audio_decoder(tokens, keep)
                output.reconstruction_loss = self.audio_decoder.loss(predicted, mel, keep)
        if input_ids is not None:
            output.text_embeds = self._embed_text(input_ids, attention_mask).pooler_output
        if return_loss:
            if output.audio_embeds is None or output.text_embeds is None:
                raise ValueError("return_loss needs both input_features and input_ids")
            output.loss = contrastive_loss(
                output.audio_embeds, output.text_embeds, self.logit_scale
            )
        return output

    def get_audio_features(
        self, input_features: torch.Tensor, is_longer: torch.Tensor | None = None
    ) -> BaseModelOutputWithPooling:
        """Tokens (B, 1 + N, D) without a mask and, as `pooler_output`, embeddings (B, E)."""
        tokens = self.audio_encoder(input_features, longer_B=is_longer)
        return _with_pooling(tokens, self._project(self.audio_head, pool(tokens)))

    def get_text_features(
        self, input_ids: torch.Tensor, attention_mask: torch.Tensor | None = None, **_: Any
    ) -> BaseModelOutputWithPooling:
        """The text encoder's tokens (B, L, D) and, as `pooler_output`, embeddings (B, E)."""
        return self._embed_text(input_ids, attention_mask)

    def _embed_text(
        self, input_ids: torch.Tensor, attention_mask: torch.Tensor | None
    ) -> BaseModelOutputWithPooling:
        if attention_mask is None:
            attention_mask = torch.ones_like(input_ids)
        output = self.text_encoder(input_ids=input_ids, attention_mask=attention_mask)
        pooled = pool_text(output, attention_mask, self.config.text_pooling)
        return _with_pooling(output.last_hidden_state, self._project(self.text_head, pooled))

    @staticmethod
    def _project(head: nn.Module, pooled_BD: torch.Tensor) -> torch.Tensor:
        """Embeddings in float32, also under autocast: the loss multiplies them by up to 100."""
        with torch.autocast(pooled_BD.device.type, enabled=False):
            return F.normalize(head(pooled_BD.to(head[0].weight.dtype)), dim=-1)  # type: ignore[index]

    @torch.no_grad()
    def clamp_logit_scale(self) -> None:
        """Clamp the logit scale to [0, `max_logit_scale`]; call this after each optimiser step."""
        self.logit_scale.clamp_(0, self.config.max_logit_scale)

    def _init_weights(self, module: nn.Module) -> None:
        """Initialise the modules that a checkpoint lacks; transformers protects loaded tensors."""
        initialise(module)
        if isinstance(module, AudioEncoder):
            module.initialise_cls()
            copy_(module.pos_embed, sincos_positions(module.config.grid, module.config.width))
        elif isinstance(module, AudioDecoder):
            module.initialise_mask_token()
            copy_(module.pos_embed, sincos_positions(module.grid, module.config.width))
        elif module is self:
            nn.init.constant_(self.logit_scale, math.log(1 / self.config.initial_temperature))


def _with_pooling(tokens: Any, embeddings: Any) -> BaseModelOutputWithPooling:
    return BaseModelOutputWithPooling(last_hidden_state=tokens, pooler_output=embeddings)


def _head(width_in: int, width_out: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(width_in, width_out), nn.ReLU(), nn.Linear(width_out, width_out))


AutoModel.register(FlapConfig, FlapModel)


def build_flap(encoder: EncoderConfig, model: ModelConfig, *, with_decoder: bool) -> FlapModel:
    """A new FLAP to train, from sections `encoder` and `model` of params.yaml.

    Args:
        with_decoder: whether to train reconstruction; the decoder takes memory.

    Raises:
        UserError: the pretrained text encoder cannot be loaded.
    """
    text_encoder = build_text_encoder(model.text)
    config = FlapConfig(
        audio_config=encoder.model_dump(),
        text_config=text_encoder.config.to_dict(),
        text_pooling=model.text.pooling,
        max_text_tokens=model.text.max_tokens,
        fusion=model.fusion,
        decoder_config=model.decoder.model_dump() if with_decoder else None,
        projection_dim=model.embedding,
        initial_temperature=model.initial_temperature,
        max_logit_scale=model.max_logit_scale,
    )
    return FlapModel(config, text_encoder)
