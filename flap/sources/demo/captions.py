"""Five captions of a scene: the first says all, the others each leave something out.

A caption is drawn in three steps: what to mention (`Telling`), how to say each part (as a
sentence or as a noun phrase), and the frame that joins the parts.
"""

import re
from dataclasses import dataclass

import numpy as np

from flap.sources.demo.catalogue import Catalogue, Grammar, Phrases, Sound
from flap.sources.demo.scene import Event, Relation, Scene

CAPTIONS_PER_CLIP = 5
_ENDINGS = (".", ".", "")  # people forget it
_ARTICLE = re.compile(r"^(an?|the) ")


@dataclass(frozen=True)
class Telling:
    """What one caption mentions."""

    events: tuple[Event, ...]
    counts: bool
    pitch: bool
    loudness: bool
    background: bool


def draw_captions(rng: np.random.Generator, scene: Scene, catalogue: Catalogue) -> list[str]:
    """`CAPTIONS_PER_CLIP` different captions, in random order."""
    teller = _Teller(rng, catalogue)
    everything = Telling(scene.events, True, True, True, True)
    captions = [teller.tell(scene, everything)]
    while len(captions) < CAPTIONS_PER_CLIP:
        caption = teller.tell(scene, _draw_telling(rng, scene))
        if caption.rstrip(".") not in {told.rstrip(".") for told in captions}:
            captions.append(caption)
    return [captions[i] for i in rng.permutation(len(captions))]


def _draw_telling(rng: np.random.Generator, scene: Scene) -> Telling:
    events = list(scene.events)
    if len(events) > 1 and rng.random() < 0.12:
        events.pop(int(rng.integers(len(events))))
    counts, pitch, loudness, background = rng.random(4) < (0.85, 0.6, 0.6, 0.75)
    return Telling(tuple(events), bool(counts), bool(pitch), bool(loudness), bool(background))


@dataclass(frozen=True)
class _Teller:
    rng: np.random.Generator
    catalogue: Catalogue

    @property
    def grammar(self) -> Grammar:
        return self.catalogue.grammar

    def pick(self, phrases: Phrases) -> str:
        return phrases[int(self.rng.integers(len(phrases)))]

    def tell(self, scene: Scene, telling: Telling) -> str:
        """One caption, with a capital and mostly a full stop."""
        as_sentences = self.rng.random() < 0.5
        part = self._sentence if as_sentences else self._noun_phrase
        parts = [part(event, telling) for event in telling.events]
        frames = self._frames(scene.relation, len(parts), as_sentences)
        text = self.pick(frames).format(**dict(zip("abc", parts, strict=False)))
        if scene.background is not None and telling.background:
            behind = self.pick(self.catalogue.sounds[scene.background].behind)
            may_lead = as_sentences and scene.relation != "while"
            leads = may_lead and self.rng.random() < 0.4
            text = f"{behind}, {text}" if leads else f"{text} {behind}"
        return f"{text[0].upper()}{text[1:]}{self.pick(_ENDINGS)}"

    def _frames(self, relation: Relation, parts: int, as_sentences: bool) -> Phrases:
        """Frames for as many parts as are told; leaving one out keeps the order."""
        if parts == 1:
            templates = self.grammar.one
        elif relation == "while":
            templates = self.grammar.while_
        else:
            templates = self.grammar.then if parts == 2 else self.grammar.series
        return templates.sentences if as_sentences else templates.nouns

    def _sentence(self, event: Event, telling: Telling) -> str:
        """ "a deep bell rings twice in the distance" """
        return self._actor(event, telling, self._sound(event).verbs)

    def _noun_phrase(self, event: Event, telling: Telling) -> str:
        """ "two deep faint bell strikes", or "a deep bell ringing twice in the distance" """
        if self.rng.random() < 0.5:
            return self._actor(event, telling, self._sound(event).gerunds)
        adjectives = []
        if event.loudness and telling.loudness:
            adjectives.append(self.pick(self.grammar.loudness[event.loudness]))
        if event.pitch and telling.pitch:
            adjectives.append(self.pick(self.grammar.pitch[event.pitch]))
        noun = self.pick(self._sound(event).nouns)
        if event.count == 1:
            return describe(noun, adjectives)
        number = self.pick(self.grammar.numbers[event.count]) if telling.counts else "several"
        return " ".join([number, *adjectives, plural(noun)])

    def _actor(self, event: Event, telling: Telling, actions: Phrases) -> str:
        words = [self.pick(self._sound(event).subject), self.pick(actions)]
        if event.count > 1 and telling.counts:
            words.append(self.pick(self.grammar.times[event.count]))
        if event.pitch and telling.pitch:
            words.append(self.pick(self.grammar.pitch_manner[event.pitch]))
        if event.loudness and telling.loudness:
            words.append(self.pick(self.grammar.loudness_manner[event.loudness]))
        return " ".join(words)

    def _sound(self, event: Event) -> Sound:
        return self.catalogue.sounds[event.sound]


def describe(noun: str, adjectives: list[str]) -> str:
    """The noun with adjectives after its article: "an owl hoot" + "loud" → "a loud owl hoot"."""
    article = _ARTICLE.match(noun)
    words = " ".join([*adjectives, _ARTICLE.sub("", noun)])
    if article is None:
        return words
    if article[1] == "the":
        return f"the {words}"
    return f"{'an' if words[0] in 'aeio' else 'a'} {words}"


def plural(noun: str) -> str:
    """ "a bark" → "barks", "a horn blast from a train" → "horn blasts from a train" """
    head, *rest = re.split(r"(?= of | from )", _ARTICLE.sub("", noun), maxsplit=1)
    ending = "es" if head.endswith(("s", "sh", "ch")) else "s"
    return "".join([head, ending, *rest])
