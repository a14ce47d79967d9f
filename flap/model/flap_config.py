"""`FlapConfig`: the content of `config.json` in a model's folder."""

from typing import Any, ClassVar

from transformers import AutoConfig, PreTrainedConfig

from flap.model.config import EncoderConfig


class FlapConfig(PreTrainedConfig):
    """The configuration of a FLAP model.

    Args:
        audio_config: values of `EncoderConfig`, section `encoder` of params.yaml.
        text_config: configuration of the text encoder, of any transformers model type.
        text_pooling: see `flap.model.config.Pooling`.
        max_text_tokens: captions are truncated to this length.
        fusion: whether the model fuses LS-CLAP's four channels of a window.
        decoder_config: values of `DecoderConfig`; None for a model without a decoder.
        projection_dim: width E of the embeddings.
        initial_temperature: τ of equation 1 before training.
        max_logit_scale: upper limit of ln(1/τ).
    """

    model_type = "flap"
    sub_configs: ClassVar[dict[str, Any]] = {"text_config": AutoConfig}
    has_no_defaults_at_init = True  # only params.yaml has values

    audio_config: dict[str, Any]
    text_config: dict[str, Any] | PreTrainedConfig
    text_pooling: str
    max_text_tokens: int
    fusion: bool
    decoder_config: dict[str, Any] | None
    projection_dim: int
    initial_temperature: float
    max_logit_scale: float

    def __post_init__(self, **kwargs: Any) -> None:
        if isinstance(self.text_config, dict):
            self.text_config = AutoConfig.for_model(**self.text_config)
        super().__post_init__(**kwargs)  # type: ignore[no-untyped-call]

    @property
    def encoder(self) -> EncoderConfig:
        """`audio_config` as a validated `EncoderConfig`."""
        return EncoderConfig.model_validate(self.audio_config)


AutoConfig.register(FlapConfig.model_type, FlapConfig)
