"""A prompt file + (tags, caption) → what is sent to the model.

The paper's request is "Describe a situation with {tags} sounds and combine it with the
{caption} together." A chat model gets it as a user's turn. A base model gets it after worked
examples in the same form, begins with one of the prompt's openings, and stops at the end of
its line.
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
    """One prompt file. `id` is its name and the hash of its bytes."""

    id: str
    form: Literal["chat", "completion"]
    request: str  # with {tags} and {caption}
    stop: tuple[str, ...]
    instruction: str  # before the examples, or the system's turn of a chat; may be ''
    openings: tuple[str, ...]  # first words of the answer, for completions; may be empty
    examples: tuple[Example, ...]
    chat_template: str | None  # for chat models whose tokenizer brings none

    def body(
        self, tags: Sequence[str], caption: str, attempt: int, config: CaptionsConfig
    ) -> dict[str, Any]:
        """A request's JSON but for the model's name: all that shapes the answer.

        Args:
            attempt: from 0; another one has another opening, and with a temperature another seed.
        """
        body: dict[str, Any] = dict(config.sampling)
        if config.temperature:
            body["seed"] += attempt
        if self.stop:
            body["stop"] = list(self.stop)
        if self.form == "chat":
            turns = [("system", self.instruction), ("user", self._asked(tags, caption))]
            return body | {"messages": [{"role": r, "content": text} for r, text in turns if text]}
        opening = self.opening(tags, caption, attempt)
        return body | {"prompt": f"{self._before}{self._asked(tags, caption)} {opening}".rstrip()}

    def opening(self, tags: Sequence[str], caption: str, attempt: int) -> str:
        """The opening for this caption: spread evenly over captions, another one each attempt."""
        if not self.openings:
            return ""
        digest = hashlib.sha256(self._asked(tags, caption).encode()).digest()
        return self.openings[(int.from_bytes(digest[:8]) + attempt) % len(self.openings)]

    def attempts(self, config: CaptionsConfig) -> int:
        """How often it makes sense to ask: without sampling, once an opening."""
        most = config.tries if config.temperature else max(len(self.openings), 1)
        return min(config.tries, most)

    @cached_property
    def _before(self) -> str:
        """What stands before the question of a completion: instruction and worked examples."""
        parts = [f"{self.instruction}\n"] if self.instruction else []
        parts += [f"{self._asked(e.tags, e.caption)} {e.answer}\n" for e in self.examples]
        return "".join(f"{part}\n" for part in parts)

    def _asked(self, tags: Sequence[str], caption: str) -> str:
        spoken = ", ".join(spoken_tag(tag) for tag in tags)
        return self.request.format(tags=spoken, caption=caption.strip()).rstrip()


def load_prompt(name: str) -> Prompt:
    """The prompt `name` from the folder `prompts`."""
    path = _FOLDER / f"{name}.yaml"
    if not path.exists():
        known = ", ".join(sorted(found.stem for found in _FOLDER.glob("*.yaml")))
        raise UserError(f"captions.prompt: no prompt '{name}'; there are {known}")
    raw = path.read_bytes()
    fields = YAML(typ="safe", pure=True).load(raw.decode())
    try:
        prompt_id = f"{name}-{hashlib.sha256(raw).hexdigest()[:8]}"
        return Prompt.model_validate({"id": prompt_id, **fields})
    except ValidationError as error:
        raise UserError(f"{path}: {error}") from None


@lru_cache(maxsize=4096)
def spoken_tag(display_name: str) -> str:
    """An AudioSet display name as a person would say it: "Rain on surface" → "rain on surface".

    The first of its alternatives, without what stands in brackets.
    """
    first = re.split(r"[,(]", display_name, maxsplit=1)[0].strip()
    return first if first.isupper() else first.lower()


def within_budget(labels: Sequence[str], max_tags: int, max_words: int) -> tuple[str, ...]:
    """The first labels, best first, that fit; the best one always does."""
    words = list(accumulate(len(spoken_tag(label).split()) for label in labels))
    fitting = sum(total <= max_words for total in words)
    return tuple(labels[: min(max_tags, max(fitting, 1))])
