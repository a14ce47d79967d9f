"""Section `captions` of params.yaml."""

from typing import Literal

from pydantic import NonNegativeInt, PositiveInt

from flap.core.config import Section
from flap.core.schemas import Split


class ServeConfig(Section):
    """How vLLM is started when the environment names no endpoint."""

    dtype: Literal["auto", "float32", "bfloat16", "float16"]
    enforce_eager: bool
    max_model_len: PositiveInt  # tokens of prompt and answer together
    kv_cache_gib: PositiveInt  # on the CPU only; a GPU takes what is free
    tensor_parallel: PositiveInt  # GPUs that share the model
    data_parallel: PositiveInt  # copies of the model
    startup_seconds: float


class CaptionsConfig(Section):
    """What is asked of the language model, and which answers are kept."""

    splits: tuple[Split, ...]
    prompt: str  # file in flap/captions/prompts, without .yaml
    tries: PositiveInt  # times a caption is asked, each with another opening, until one is kept
    max_tags: PositiveInt
    max_tag_words: PositiveInt  # over all tags of a request; a word is one or two tokens
    temperature: float
    max_tokens: PositiveInt
    seed: NonNegativeInt
    concurrency: PositiveInt  # requests in flight
    max_words: int
    max_text_tokens: PositiveInt  # what text encoders read; of the LLM's tokenizer
    min_tag_coverage: float
    min_faithfulness: float
    max_invented: float
    max_invented_sounds: NonNegativeInt
    serve: ServeConfig

    @property
    def sampling(self) -> dict[str, float]:
        """What a request says of sampling."""
        return {
            "temperature": self.temperature,
            "max_tokens": self.max_tokens,
            "seed": self.seed,
        }
