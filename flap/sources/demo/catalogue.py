"""`demo_sounds.yaml`: what can sound in the demo corpus and how it is said, typed."""

from functools import cache
from pathlib import Path
from typing import Literal

from pydantic import Field, ValidationError, field_validator, model_validator

from flap.core.audioset import display_names
from flap.core.config import Section, read_params
from flap.core.errors import UserError
from flap.sources.demo.dsp import Synthesiser
from flap.sources.demo.synthesis_animals import ANIMALS
from flap.sources.demo.synthesis_machines import MACHINES
from flap.sources.demo.synthesis_nature import NATURE
from flap.sources.demo.synthesis_objects import OBJECTS
from flap.sources.demo.synthesis_people import PEOPLE

SYNTHESISERS: dict[str, Synthesiser] = {**NATURE, **ANIMALS, **PEOPLE, **MACHINES, **OBJECTS}

Phrases = tuple[str, ...]


class Sound(Section):
    """One kind of sound; the file's head says what each key means."""

    label: str
    kind: Literal["event", "texture"]
    seconds: tuple[float, float]
    max_count: int = Field(ge=1, le=4)
    pitchable: bool
    subject: Phrases = Field(min_length=1)
    verbs: Phrases = Field(min_length=1)
    gerunds: Phrases = Field(min_length=1)
    nouns: Phrases = Field(min_length=1)
    behind: Phrases = ()

    @field_validator("label")
    @classmethod
    def _known_label(cls, label: str) -> str:
        if label not in display_names():
            raise ValueError("is no AudioSet display name")
        return label

    @model_validator(mode="after")
    def _textures_have_backgrounds(self) -> "Sound":
        if (self.kind == "texture") != bool(self.behind):
            raise ValueError("textures need 'behind', and only they")
        return self


class Templates(Section):
    """Sentence frames for parts told as sentences and as noun phrases."""

    sentences: Phrases
    nouns: Phrases


class Grammar(Section):
    """Words and frames shared by all sounds."""

    times: dict[int, Phrases]
    numbers: dict[int, Phrases]
    pitch: dict[str, Phrases]
    pitch_manner: dict[str, Phrases]
    loudness: dict[str, Phrases]
    loudness_manner: dict[str, Phrases]
    one: Templates
    then: Templates
    while_: Templates = Field(alias="while")
    series: Templates


class Catalogue(Section):
    """The whole file."""

    sounds: dict[str, Sound]
    grammar: Grammar

    @field_validator("sounds")
    @classmethod
    def _can_be_made(cls, sounds: dict[str, Sound]) -> dict[str, Sound]:
        unknown = sorted(set(sounds) - set(SYNTHESISERS))
        if unknown:
            raise ValueError(f"no synthesis function for {', '.join(unknown)}")
        return sounds

    def names(self, kind: Literal["event", "texture"]) -> list[str]:
        """Sounds of a kind, in the file's order."""
        return [name for name, sound in self.sounds.items() if sound.kind == kind]


@cache
def load_catalogue(path: Path) -> Catalogue:
    """The catalogue of a file.

    Raises:
        UserError: it is missing, not YAML, or a key is wrong; the message names the key.
    """
    try:
        return Catalogue.model_validate(read_params(path))
    except ValidationError as error:
        problems = (
            f"{path}: key '{'.'.join(map(str, problem['loc']))}': {problem['msg']}"
            for problem in error.errors()
        )
        raise UserError("\n".join(problems)) from None
