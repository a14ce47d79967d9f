"""A prompt file, tags and a caption → the request to the model.

The paper's request is "Describe a situation with {tags} sounds and combine it with the
{caption} together." A chat model gets it as the user's message. A base model gets worked
examples of the same form before it. The base model's answer begins with one of the prompt's
openings and ends with the line.
"""

import hashlib
import re
from collections.abc import Sequence
from functools import cached_property, lru_cache
from itertools import accumulate
from pathlib import Path
from typing import Any, Literal

from pydantic import ValidationError
from ruamel.yaml import YAML

from flap.captions.config import CaptionsConfig
from flap.core.config import Section
from flap.core.errors import UserError

_FOLDER = Path(__file__).parent / "prompts"


class Example(Section):
    """One worked example of a completion prompt."""

    tags: tuple[str, ...]
    caption: str
    answer: str


class Prompt(Section):
    """One prompt file."""

    id: str  # the file's name and a hash of its bytes, comments included
    form: Literal["chat", "completion"]
    request: str  # template with {tags} and {caption}
    stop: tuple[str, ...]
    instruction: str  # before the examples, or the system message of a chat; may be ''
    openings: tuple[str, ...]  # first words of a completion; may be empty
    examples: tuple[Example, ...]
    chat_template: str | None  # for chat models whose tokenizer has none

    def body(
        self, tags: Sequence[str], caption: str, attempt: int, config: CaptionsConfig
    ) -> dict[str, Any]:
        """The JSON of a request, without the model's name.

        Args:
            tags: AudioSet display names.
            attempt: from 0; each attempt has another opening, and another seed if the
                temperature is not 0.
        """
        body: dict[str, Any] = dict(config.sampling)
        if config.temperature:
            body["seed"] += attempt
        if self.stop:
            body["stop"] = list(self.stop)
        if self.form == "chat":
            messages = [("system", self.instruction), ("user", self._fill(tags, caption))]
            return body | {
                "messages": [{"role": r, "content": text} for r, text in messages if text]
            }
        opening = self.opening(tags, caption, attempt)
        prompt = f"{self._preamble}{self._fill(tags, caption)} {opening}".rstrip()
        return body | {"prompt": prompt}

    def opening(self, tags: Sequence[str], caption: str, attempt: int) -> str:
        """The opening for this caption and attempt; a hash spreads the openings over captions."""
        if not self.openings:
            return ""
        digest = hashlib.sha256(self._fill(tags, caption).encode()).digest()
        return self.openings[(int.from_bytes(digest[:8]) + attempt) % len(self.openings)]

    def max_attempts(self, config: CaptionsConfig) -> int:
        """The number of distinct requests for a caption, at most `captions.tries`.

        At temperature 0, two attempts with the same opening would give the same answer.
        """
        distinct = config.tries if config.temperature else max(len(self.openings), 1)
        return min(config.tries, distinct)

    @cached_property
    def _preamble(self) -> str:
        """The text before the request of a completion: instruction and worked examples."""
        parts = [f"{self.instruction}\n"] if self.instruction else []
        parts += [f"{self._fill(e.tags, e.caption)} {e.answer}\n" for e in self.examples]
        return "".join(f"{part}\n" for part in parts)

    def _fill(self, tags: Sequence[str], caption: str) -> str:
        spoken = ", ".join(spoken_tag(tag) for tag in tags)
        return self.request.format(tags=spoken, caption=caption.strip()).rstrip()


def load_prompt(name: str) -> Prompt:
    """The prompt `name` from the folder `prompts`.

    Raises:
        UserError: no such file, or its keys or values are not those of `Prompt`.
    """
    path = _FOLDER / f"{name}.yaml"
    if not path.exists():
        known = ", ".join(sorted(found.stem for found in _FOLDER.glob("*.yaml")))
        raise UserError(f"captions.prompt: no prompt '{name}'; the folder has {known}")
    raw = path.read_bytes()
    fields = YAML(typ="safe", pure=True).load(raw.decode())
    try:
        prompt_id = f"{name}-{hashlib.sha256(raw).hexdigest()[:8]}"
        return Prompt.model_validate({"id": prompt_id, **fields})
    except ValidationError as error:
        raise UserError(f"{path}: {error}") from None


@lru_cache(maxsize=4096)
def spoken_tag(display_name: str) -> str:
    """A display name in running text: "Fire engine, fire truck (siren)" → "fire engine".

    The first alternative of the name, without brackets, in lower case unless it is an acronym.
    """
    first = re.split(r"[,(]", display_name, maxsplit=1)[0].strip()
    return first if first.isupper() else first.lower()


def limit_tags(labels: Sequence[str], max_tags: int, max_words: int) -> tuple[str, ...]:
    """As many of the first labels as the limits allow; at least one, if there is one."""
    totals = list(accumulate(len(spoken_tag(label).split()) for label in labels))
    n_fitting = sum(total <= max_words for total in totals)
    return tuple(labels[: min(max_tags, max(n_fitting, 1))])
