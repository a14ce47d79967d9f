"""`sounds.yaml` as typed classes: the sounds of the demo corpus and the words for them."""

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
    """One kind of sound; the head of `sounds.yaml` explains each key."""

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
            raise ValueError("is no AudioSet display name; see flap/core/audioset_labels.csv")
        return label

    @model_validator(mode="after")
    def _textures_have_backgrounds(self) -> "Sound":
        if (self.kind == "texture") != bool(self.behind):
            raise ValueError("a texture needs 'behind'; an event must not have it")
        return self


class Templates(Section):
    """Templates for parts that are sentences, and for parts that are noun phrases."""

    sentences: Phrases
    nouns: Phrases


class Grammar(Section):
    """Words and templates shared by all sounds."""

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
    """The content of the file."""

    sounds: dict[str, Sound]
    grammar: Grammar

    @field_validator("sounds")
    @classmethod
    def _have_synthesisers(cls, sounds: dict[str, Sound]) -> dict[str, Sound]:
        unknown = sorted(set(sounds) - set(SYNTHESISERS))
        if unknown:
            raise ValueError(f"no synthesis function for {', '.join(unknown)}")
        return sounds

    def names(self, kind: Literal["event", "texture"]) -> list[str]:
        """Names of all sounds of a kind, in the file's order."""
        return [name for name, sound in self.sounds.items() if sound.kind == kind]


@cache
def load_catalogue(path: Path) -> Catalogue:
    """The catalogue in a file.

    Raises:
        UserError: the file is missing or not YAML, or a key is wrong; the message names the key.
    """
    try:
        return Catalogue.model_validate(read_params(path))
    except ValidationError as error:
        problems = (
            f"{path}: key '{'.'.join(map(str, problem['loc']))}': {problem['msg']}"
            for problem in error.errors()
        )
        raise UserError("\n".join(problems)) from None
