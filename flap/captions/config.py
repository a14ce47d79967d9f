"""Section `captions` of params.yaml."""

from typing import Literal

from pydantic import NonNegativeInt, PositiveInt

from flap.core.config import Section
from flap.core.schemas import Split


class ServeConfig(Section):
    """How the stage starts vLLM if FLAP_LLM_ENDPOINTS is not set."""

    dtype: Literal["auto", "float32", "bfloat16", "float16"]
    enforce_eager: bool
    max_model_len: PositiveInt  # tokens of prompt and answer together
    kv_cache_gib: PositiveInt  # on a CPU; ignored on a GPU, where vLLM uses the free memory
    tensor_parallel: PositiveInt  # GPUs for one copy of the model
    data_parallel: PositiveInt  # copies of the model
    startup_seconds: float


class CaptionsConfig(Section):
    """The requests to the language model, and the limits of answers that are kept."""

    splits: tuple[Split, ...]
    prompt: str  # file in flap/captions/prompts, without .yaml
    tries: PositiveInt  # requests for a caption, each with another opening, until one is kept
    max_tags: PositiveInt
    max_tag_words: PositiveInt  # total over the tags of a request; a word is one or two tokens
    temperature: float
    max_tokens: PositiveInt
    seed: NonNegativeInt
    concurrency: PositiveInt  # requests in flight
    max_words: int
    max_text_tokens: PositiveInt  # of the LLM's tokenizer; the length that text encoders read
    min_tag_coverage: float
    min_faithfulness: float
    max_invented: float
    max_invented_sounds: NonNegativeInt
    serve: ServeConfig

    @property
    def sampling(self) -> dict[str, float]:
        """The sampling parameters of a request."""
        return {
            "temperature": self.temperature,
            "max_tokens": self.max_tokens,
            "seed": self.seed,
        }
