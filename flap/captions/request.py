"""(caption, tags, attempt) → the JSON body of a request, and its key in the cache."""

import json
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from flap.captions.cache import request_key
from flap.captions.config import CaptionsConfig
from flap.captions.prompt import Prompt
from flap.core.shards import Row


@dataclass(frozen=True)
class CaptionInput:
    """One caption to enrich, and the tags of its clip."""

    clip_id: str
    original: str
    tags: tuple[str, ...]  # AudioSet display names, most probable first


@dataclass(frozen=True)
class RequestBuilder:
    """Builds the requests of one prompt, model and configuration."""

    prompt: Prompt
    model: str  # the name under which the server knows the model
    weights_sha256: str
    config: CaptionsConfig

    @cached_property
    def provenance(self) -> Row:
        """The columns of CAPTIONS that say which model, prompt and sampling gave an answer."""
        return {
            "prompt_id": self.prompt.id,
            "model": self.model,
            "revision": self.weights_sha256[:16],
            "sampling": json.dumps(self.config.sampling, sort_keys=True),
        }

    @property
    def max_attempts(self) -> int:
        return self.prompt.max_attempts(self.config)

    def body(self, caption: CaptionInput, attempt: int) -> dict[str, Any]:
        return self.prompt.body(caption.tags, caption.original, attempt, self.config)

    def opening(self, caption: CaptionInput, attempt: int) -> str:
        return self.prompt.opening(caption.tags, caption.original, attempt)

    def key(self, caption: CaptionInput, attempt: int) -> bytes:
        """The cache key of a request."""
        body = self.body(caption, attempt)
        return request_key([self.weights_sha256, self.prompt.chat_template, body])
