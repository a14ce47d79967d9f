"""The content of one demo clip: events, their order and their times.

`flap.sources.demo.mix` renders a `Scene`, and `flap.sources.demo.captions` describes it.
"""

from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from flap.sources.demo.catalogue import Catalogue, Sound

Relation = Literal["one", "then", "while", "series"]
Pitch = Literal["low", "high"] | None
Loudness = Literal["loud", "faint"] | None

SHORT_S, LONG_S = (1.5, 5.0), (5.0, 8.0)
LONG_SHARE = 0.1
_RELATIONS: tuple[tuple[Relation, float], ...] = (
    ("one", 0.36),
    ("then", 0.36),
    ("while", 0.14),
    ("series", 0.14),
)
_PARTS = {"one": 1, "then": 2, "while": 2, "series": 3}
_TAIL_S = 0.1  # after the last event


@dataclass(frozen=True)
class Event:
    """One part of a scene: a sound of `unit_s` seconds, repeated at each of `starts_s`."""

    sound: str
    count: int
    pitch: Pitch
    loudness: Loudness
    starts_s: tuple[float, ...]
    unit_s: float

    @property
    def end_s(self) -> float:
        return self.starts_s[-1] + self.unit_s


@dataclass(frozen=True)
class Scene:
    """Events of the relations `then` and `series` follow each other, those of `while` overlap."""

    relation: Relation
    events: tuple[Event, ...]
    background: str | None
    duration_s: float

    @property
    def sounds(self) -> tuple[str, ...]:
        """The distinct sounds of the clip, the background last."""
        sounds = [event.sound for event in self.events]
        return tuple(dict.fromkeys(sounds + ([self.background] if self.background else [])))


def draw_scene(rng: np.random.Generator, catalogue: Catalogue) -> Scene:
    """A random scene within the length limits; scenes that are too long are drawn again."""
    is_long = rng.random() < LONG_SHARE
    shortest, longest = LONG_S if is_long else SHORT_S
    while True:
        relation = _pick(rng, _RELATIONS)
        names = _draw_sounds(rng, catalogue, _PARTS[relation])
        events = _draw_events(rng, catalogue, names, overlap=relation == "while")
        needed = max(event.end_s for event in events) + _TAIL_S
        if needed <= longest:
            break
    at_least = rng.uniform(shortest, longest) if is_long else shortest
    duration = min(longest, max(at_least, needed + rng.uniform(0.0, 0.5)))
    lead = rng.uniform(0.0, duration - needed)
    events = [replace(e, starts_s=tuple(lead + start for start in e.starts_s)) for e in events]
    background = _draw_background(rng, catalogue, names)
    return Scene(relation, tuple(events), background, round(float(duration), 3))


def _draw_events(
    rng: np.random.Generator, catalogue: Catalogue, names: list[str], *, overlap: bool
) -> list[Event]:
    """Events one after another, or, with `overlap`, all with a start in the first 0.3 s."""
    events: list[Event] = []
    cursor = float(rng.uniform(0.05, 0.3))
    for name in names:
        events.append(_draw_event(rng, name, catalogue.sounds[name], cursor))
        if overlap:
            cursor = float(rng.uniform(0.05, 0.3))
        else:
            cursor = events[-1].end_s + float(rng.uniform(0.15, 0.4))
    return _stretch(events, catalogue) if overlap else events


def _pick(rng: np.random.Generator, weighted: tuple[tuple[Relation, float], ...]) -> Relation:
    names, weights = zip(*weighted, strict=True)
    chosen: Relation = names[int(rng.choice(len(names), p=weights))]
    return chosen


def _draw_sounds(rng: np.random.Generator, catalogue: Catalogue, count: int) -> list[str]:
    """Names of different sounds; with a probability of 0.2 one of them is a texture."""
    events, textures = catalogue.names("event"), catalogue.names("texture")
    texture_first = rng.random() < 0.2
    pool = [str(name) for name in rng.choice(events, size=count, replace=False)]
    if texture_first:
        pool[0] = str(rng.choice(textures))
    return [pool[i] for i in rng.permutation(count)]


def _draw_event(rng: np.random.Generator, name: str, sound: Sound, start_s: float) -> Event:
    unit = float(rng.uniform(*sound.seconds))
    count = int(rng.integers(1, sound.max_count + 1))
    period = unit + float(rng.uniform(0.12, 0.3))
    pitch: Pitch = None
    if sound.pitchable and rng.random() < 0.5:
        pitch = "low" if rng.random() < 0.5 else "high"
    draw = rng.random()
    loudness: Loudness = "loud" if draw < 0.2 else "faint" if draw < 0.42 else None
    starts = tuple(start_s + i * period for i in range(count))
    return Event(name, count, pitch, loudness, starts, unit)


def _stretch(events: list[Event], catalogue: Catalogue) -> list[Event]:
    """Make textures among overlapping events as long as all events together."""
    first, last = min(e.starts_s[0] for e in events), max(e.end_s for e in events)
    return [
        replace(e, starts_s=(first,), unit_s=last - first)
        if catalogue.sounds[e.sound].kind == "texture"
        else e
        for e in events
    ]


def _draw_background(
    rng: np.random.Generator, catalogue: Catalogue, parts: list[str]
) -> str | None:
    """A texture as background; None by chance, or if an event already is a texture."""
    wanted = rng.random() < (0.6 if len(parts) == 1 else 0.45)
    choice = str(rng.choice(catalogue.names("texture")))
    has_texture = any(catalogue.sounds[name].kind == "texture" for name in parts)
    return choice if wanted and not has_texture else None
