"""`FlapConfig`: what `config.json` in a model's folder says, as `transformers` wants it."""

from typing import Any, ClassVar

from transformers import AutoConfig, PreTrainedConfig

from flap.model.config import EncoderConfig


class FlapConfig(PreTrainedConfig):
    """Everything that makes the model but its weights.

    Args:
        audio_config: values of `EncoderConfig`, section `encoder` of params.yaml.
        text_config: configuration of the text encoder, of any transformers model type.
        decoder_config: values of `DecoderConfig`; None where there is no decoder.
        fusion: whether windows have LS-CLAP's four channels.
    """

    model_type = "flap"
    sub_configs: ClassVar[dict[str, Any]] = {"text_config": AutoConfig}
    has_no_defaults_at_init = True  # params.yaml is the owner of values

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
        """Sizes, window and normalisation of the audio side, checked."""
        return EncoderConfig.model_validate(self.audio_config)


AutoConfig.register(FlapConfig.model_type, FlapConfig)
