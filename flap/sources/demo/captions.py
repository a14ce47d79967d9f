"""A scene → five captions: one mentions everything, the others may leave something out.

A caption is drawn in three steps: what to mention (`Mentions`), how to phrase each part (as a
sentence or as a noun phrase), and the template that joins the parts.
"""

import re
from dataclasses import dataclass

import numpy as np

from flap.sources.demo.catalogue import Catalogue, Grammar, Phrases, Sound
from flap.sources.demo.scene import Event, Relation, Scene

CAPTIONS_PER_CLIP = 5
_ENDINGS = (".", ".", "")  # people often forget the full stop
_ARTICLE = re.compile(r"^(an?|the) ")


@dataclass(frozen=True)
class Mentions:
    """The properties of a scene that one caption mentions."""

    events: tuple[Event, ...]
    counts: bool
    pitch: bool
    loudness: bool
    background: bool


def draw_captions(rng: np.random.Generator, scene: Scene, catalogue: Catalogue) -> list[str]:
    """`CAPTIONS_PER_CLIP` different captions, in random order."""
    writer = _CaptionWriter(rng, catalogue)
    everything = Mentions(scene.events, True, True, True, True)
    captions = [writer.write(scene, everything)]
    while len(captions) < CAPTIONS_PER_CLIP:
        caption = writer.write(scene, _draw_mentions(rng, scene))
        if caption.rstrip(".") not in {other.rstrip(".") for other in captions}:
            captions.append(caption)
    return [captions[i] for i in rng.permutation(len(captions))]


def _draw_mentions(rng: np.random.Generator, scene: Scene) -> Mentions:
    events = list(scene.events)
    if len(events) > 1 and rng.random() < 0.12:
        events.pop(int(rng.integers(len(events))))
    counts, pitch, loudness, background = rng.random(4) < (0.85, 0.6, 0.6, 0.75)
    return Mentions(tuple(events), bool(counts), bool(pitch), bool(loudness), bool(background))


@dataclass(frozen=True)
class _CaptionWriter:
    rng: np.random.Generator
    catalogue: Catalogue

    @property
    def grammar(self) -> Grammar:
        return self.catalogue.grammar

    def pick(self, phrases: Phrases) -> str:
        return phrases[int(self.rng.integers(len(phrases)))]

    def write(self, scene: Scene, mentions: Mentions) -> str:
        """One caption that starts with a capital and usually ends with a full stop."""
        as_sentences = self.rng.random() < 0.5
        phrase = self._sentence if as_sentences else self._noun_phrase
        parts = [phrase(event, mentions) for event in mentions.events]
        frames = self._frames(scene.relation, len(parts), as_sentences)
        text = self.pick(frames).format(**dict(zip("abc", parts, strict=False)))
        if scene.background is not None and mentions.background:
            behind = self.pick(self.catalogue.sounds[scene.background].behind)
            may_lead = as_sentences and scene.relation != "while"
            leads = may_lead and self.rng.random() < 0.4
            text = f"{behind}, {text}" if leads else f"{text} {behind}"
        return f"{text[0].upper()}{text[1:]}{self.pick(_ENDINGS)}"

    def _frames(self, relation: Relation, parts: int, as_sentences: bool) -> Phrases:
        """Templates for the number of mentioned parts; the parts stay in their order."""
        if parts == 1:
            templates = self.grammar.one
        elif relation == "while":
            templates = self.grammar.while_
        else:
            templates = self.grammar.then if parts == 2 else self.grammar.series
        return templates.sentences if as_sentences else templates.nouns

    def _sentence(self, event: Event, mentions: Mentions) -> str:
        """ "a deep bell rings twice in the distance" """
        return self._actor(event, mentions, self._sound(event).verbs)

    def _noun_phrase(self, event: Event, mentions: Mentions) -> str:
        """ "two deep faint bell strikes", or "a deep bell ringing twice in the distance" """
        if self.rng.random() < 0.5:
            return self._actor(event, mentions, self._sound(event).gerunds)
        adjectives = []
        if event.loudness and mentions.loudness:
            adjectives.append(self.pick(self.grammar.loudness[event.loudness]))
        if event.pitch and mentions.pitch:
            adjectives.append(self.pick(self.grammar.pitch[event.pitch]))
        noun = self.pick(self._sound(event).nouns)
        if event.count == 1:
            return describe(noun, adjectives)
        number = self.pick(self.grammar.numbers[event.count]) if mentions.counts else "several"
        return " ".join([number, *adjectives, plural(noun)])

    def _actor(self, event: Event, mentions: Mentions, actions: Phrases) -> str:
        words = [self.pick(self._sound(event).subject), self.pick(actions)]
        if event.count > 1 and mentions.counts:
            words.append(self.pick(self.grammar.times[event.count]))
        if event.pitch and mentions.pitch:
            words.append(self.pick(self.grammar.pitch_manner[event.pitch]))
        if event.loudness and mentions.loudness:
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
