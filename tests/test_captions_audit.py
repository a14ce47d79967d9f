"""captions: each rule of the audit both ways, its measures, and the metrics of a table, by hand."""

from pathlib import Path
from typing import Any

import pytest
from captions_inputs import config
from hypothesis import given
from hypothesis import strategies as st

from flap.captions.audit import (
    REASONS,
    Verdict,
    audit,
    faithfulness,
    invented,
    invented_sounds,
    is_english,
    tag_coverage,
)
from flap.captions.metrics import caption_metrics
from flap.captions.prompt import spoken_tag
from flap.captions.words import sound_kin, word_lists, wording
from flap.core.audioset import display_names
from flap.core.schemas import CAPTIONS
from flap.core.shards import shard_name, write_rows

DOG, RAIN = ["Dog"], ["Rain", "Siren"]


def _judge(original: str, tags: list[str], answer: str | None, finish: str = "stop") -> Verdict:
    return audit(original, tags, answer, finish, 0, config())


@pytest.mark.parametrize(
    ("original", "tags", "answer", "finish", "reason"),
    [
        ("A dog barks.", RAIN, "A dog barks in the rain.", "stop", ""),
        ("A dog barks.", DOG, None, "", "request_failed"),
        ("A dog barks.", [], None, "", "no_tags"),
        ("A dog barks.", DOG, " ...", "stop", "empty"),
        ("A dog barks.", DOG, "A dog is barking and", "length", "truncated"),
        ("A dog barks.", DOG, "Собака лает, a dog barks.", "stop", "non_english"),
        ("A dog barks.", DOG, "Dog sounds and combine it with a dog barks.", "stop", "prompt_echo"),
        ("A dog barks.", DOG, "I'm sorry, I cannot hear a dog barking.", "stop", "refusal"),
        ("A dog barks.", DOG, "Sure! Here is a dog barking.", "stop", "chatty"),
        ("A dog barks.", DOG, "A dog barks " + "very " * 60 + "loudly.", "stop", "too_long"),
        ("A dog barks.", DOG, "A dog barks and a dog barks again.", "stop", "repetition"),
        ("A dog barks, a dog barks.", DOG, "A dog barking, then a dog barking.", "stop", ""),
        ("A dog barks.", DOG, "there is a dog barks", "stop", "copy"),
        ("A dog barks at a red car.", DOG, "There is a dog.", "stop", "low_faithfulness"),
        ("A dog barks.", [*RAIN, "Bell"], "Dogs are barking.", "stop", "low_tag_coverage"),
        ("A dog barks.", DOG, "A dog barking, a cat and a train.", "stop", "invented_sounds"),
        ("A dog barks.", DOG, "A dog barking, a lion eating grapes.", "stop", "invented"),
    ],
)
def test_audit_reasons(
    original: str, tags: list[str], answer: str | None, finish: str, reason: str
) -> None:
    assert _judge(original, tags, answer, finish).reason == reason
    assert reason in {"", *REASONS}


def test_too_long_counts_tokens_too() -> None:
    row = ("A dog barks.", DOG, "A dog is barking.", "stop")
    limits = config(max_text_tokens=10)
    assert audit(*row, 10, limits).reason == ""
    assert audit(*row, 11, limits).reason == "too_long"


def test_the_limit_of_invented_sounds_is_what_is_kept() -> None:
    row = (
        "A dog barks loudly at a red car.",
        DOG,
        "A dog barking loudly at a red car, with a cat.",
    )
    assert audit(*row, "stop", 0, config(max_invented_sounds=1)).reason == ""
    assert audit(*row, "stop", 0, config(max_invented_sounds=0)).reason == "invented_sounds"


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        ("I cannot assist with that, a dog barking.", "refusal"),
        ("I can\u2019t hear a dog barking.", "refusal"),
        ("As a language model, a dog barking.", "refusal"),
        ("As an AI, I hear a dog barking.", "refusal"),
        ("Sorry, unable to generate a dog barking.", "refusal"),
        ("Sure! I cannot help with a dog barking.", "refusal"),
        ("Sure! Here is a dog barking.", "chatty"),
        ("Certainly, a dog is barking.", "chatty"),
        ("Here's a description: a dog barking.", "chatty"),
        ("Here is a caption in which a dog is barking.", "chatty"),
        ("A dog is barking. Let me know!", "chatty"),
        ("The caption has a dog barking.", "chatty"),
        ("Caption: a dog is barking.", "prompt_echo"),
        ("**Enriched caption:** a dog is barking.", "prompt_echo"),
        ("A dog is barking. USER: go on", "prompt_echo"),
        ("A dog barking in {caption}", "prompt_echo"),
        ("Here is a dog barking.", ""),
        ("Here a dog is barking.", ""),
        ("I hear a dog barking.", ""),
        ("Surely a dog barking.", "invented"),
        ("A dog is barking, this scene: of course.", "invented"),
    ],
)
def test_what_a_model_says_around_a_caption(answer: str, reason: str) -> None:
    assert _judge("A dog barks.", DOG, answer).reason == reason


@pytest.mark.parametrize(
    "original",
    [
        "A man says I'm sorry.",
        "Okay, says a man, I can't hear you.",
        "A man says here is the situation: I cannot help.",
    ],
)
def test_what_the_original_says_is_no_refusal_or_chat(original: str) -> None:
    assert _judge(original, ["Dog"], f"{original} A dog barks.").reason == ""


@pytest.mark.parametrize(
    "answer",
    [
        "Der Hund bellt, und ein Auto hupt in der Nacht.",
        "Man kann einen Hund mit dem Wind bellen horen.",
        "Un perro ladra mientras la lluvia cae sobre el tejado.",
        "Se escucha el motor de un coche con la sirena.",
        "Un chien aboie dans la rue pendant que la pluie tombe.",
        "Il pleut et une sirène passe au loin.",
        "Un cane abbaia mentre la pioggia cade sul tetto.",
        "Um cachorro late enquanto a chuva cai no telhado.",
        "Een hond blaft terwijl het regent op straat.",
        "The sound of un chien qui aboie dans la rue.",
        "狗在雨中吠叫 dog",
    ],
)
def test_other_languages_are_not_english(answer: str) -> None:
    assert not is_english(answer, wording(answer))
    assert _judge("A dog barks.", DOG, answer).reason == "non_english"


@pytest.mark.parametrize(
    "answer",
    [
        "dog barking, rain falling, distant siren wailing",
        "Loud dog barks, heavy rain, thunder, church bells ringing",
        "car engine idling rough high pitched squeal metal clanking",
        "Birds chirp, wind blows, leaves rustle, water flows",
        "A woman sings la la la la la la.",
        "A recording of De La Soul is playing on the radio.",
        "A mariachi band plays in Los Angeles near El Paso.",
        "A man orders a café au lait in a café.",
        "The die is cast as a man has a drink in a bar.",
        "He was in war; an uncle sat on a hat, so it is.",
        "un perro ladra",  # too short to tell
        "",
    ],
)
def test_english_is_english_even_without_function_words(answer: str) -> None:
    assert is_english(answer, wording(answer))


def test_word_lists_do_not_contradict_each_other() -> None:
    lists = word_lists()
    assert not lists.foreign & lists.stop
    assert not lists.foreign & sound_kin().keys()
    assert not lists.silent & sound_kin().keys()


@pytest.mark.parametrize(
    ("tag", "text", "covered"),
    [
        ("Church bell", "the bells are ringing", True),
        ("Male speech, man speaking", "a man speaks", True),
        ("Male speech, man speaking", "there is speech", True),
        ("Rain on surface", "it is raining on a roof", True),
        ("Vehicle horn, car horn, honking", "a car honks", True),
        ("Fire engine, fire truck (siren)", "a siren passes", True),
        ("Heart sounds, heartbeat", "sounds of the sea", False),
        ("Animal", "a cat meows", True),
        ("Speech", "people talk in a hall", True),
        ("Bird vocalization, bird call, bird song", "birds are singing", True),
        ("Dog", "a hotdog stand", False),
        ("Wind", "a window rattles", False),
        ("Siren", "a dog barks", False),
    ],
)
def test_tag_coverage_by_hand(tag: str, text: str, covered: bool) -> None:
    assert tag_coverage([tag], wording(text)) == float(covered)


def test_shares_by_hand() -> None:
    # dog, bark, twice, yard: three of four are kept, by stem and irregular form.
    dogs = wording("In the yard, dogs are barking.")
    assert faithfulness(wording("A dog barks twice in the yard."), dogs) == 0.75
    assert faithfulness(wording("Bells rang."), wording("a bell rings")) == 1.0
    assert faithfulness(wording("A dog\u2019s café."), wording("the dog's cafe")) == 1.0
    assert tag_coverage(["Rain", "Dog"], wording("the dog is wet")) == 0.5
    # bark, rain, lion, roar: the last two come from nowhere.
    text = wording("Barking in the rain as a lion roars.")
    assert invented(wording("Barking."), ["Rain"], text) == 0.5
    assert invented(wording(""), [], wording("")) == 0.0


def test_a_verdict_by_hand() -> None:
    found = _judge("A dog barks in a yard.", ["Dog", "Rain"], "Rain and a dog barking, and a cat.")
    # The original names one tag of two; of dog, bark, yard two are kept; of rain, dog, bark, cat
    # the cat is new, and a sound.
    assert found == Verdict(8, 0, 1.0, 0.5, 2 / 3, 0.25, 1, "invented_sounds")


@pytest.mark.parametrize(
    ("original", "tags", "answer", "sounds"),
    [
        ("A dog barks.", DOG, "A dog barks near a cat.", 1),
        ("A dog barks.", DOG, "A dog barks as a cat meows.", 2),
        ("A man talks.", ["Speech"], "A man talks while barking and barking.", 1),
        ("Water drips.", ["Drip"], "Water drips, with a helicopter and an engine.", 2),
        ("A car passes.", ["Car"], "A car passes with a siren.", 1),
        ("A piano plays.", ["Piano"], "A piano and a guitar play music.", 1),
        ("A man talks.", ["Speech"], "A man talks, and guns and dogs are heard.", 2),
        # Words that name no sound.
        ("A dog barks.", DOG, "Inside a small room, a dog makes noises in silence.", 0),
        ("A dog barks.", DOG, "A dog starts running outside with a low tone.", 0),
        ("A dog barks.", DOG, "A dog is playing on a wood and metal table in a park.", 0),
        ("A bell tolls.", ["Bell"], "A bell is ringing in a white house by the road.", 0),
        # Another word of the same group, or of what words.yaml takes for the same.
        ("A phone rings.", ["Ringtone"], "A telephone rings.", 0),
        ("A dog yaps.", DOG, "A puppy barks.", 0),
        ("Birds tweet.", ["Bird"], "Birds are chirping and singing.", 0),
        ("A man speaks.", ["Speech"], "The voice of a man in a conversation.", 0),
        ("A cat.", ["Cat"], "A cat meows.", 0),
        # What a tag or a word of the original is one of.
        ("It is loud.", DOG, "An animal, a pet.", 0),
        ("It is loud.", ["Car"], "A vehicle with an engine in traffic.", 0),
        ("A violin plays.", ["Violin, fiddle"], "A fiddle plays music, an instrument.", 0),
        ("Rain falls.", ["Rain"], "Water falls as rain.", 0),
        # An alternative of a tag.
        ("It is loud.", ["Fire engine, fire truck (siren)"], "A siren of a fire engine.", 0),
        ("", [], "", 0),
    ],
)
def test_invented_sounds_by_hand(original: str, tags: list[str], answer: str, sounds: int) -> None:
    assert invented_sounds(wording(original), tags, wording(answer)) == sounds


_WORDS = st.sampled_from(
    [
        "a",
        "the",
        "dog",
        "dogs",
        "barks",
        "loudly",
        "rain",
        "engine",
        "bell",
        "rang",
        "café",
        "la",
        "3",
    ]
)
_TEXTS = st.lists(_WORDS, max_size=14).map(" ".join)
_TAGS = st.lists(st.sampled_from(display_names()), max_size=5, unique=True)


@given(_TEXTS, _TAGS, _TEXTS)
def test_measures_stay_in_their_ranges(original: str, tags: list[str], answer: str) -> None:
    found = _judge(original, tags, answer)
    shares = found[1:5]
    assert all(0.0 <= share <= 1.0 for share in shares)
    assert 0 <= found.invented_sounds <= found.n_words
    assert found.reason in {"", *REASONS}
    assert found.original_coverage == tag_coverage(tags, wording(original))


@given(_TEXTS, _TAGS)
def test_the_original_with_all_tags_spoken_is_perfect(original: str, tags: list[str]) -> None:
    answer = f"{original}, with {' and '.join(map(spoken_tag, tags))}."
    found = _judge(original, tags, answer)
    assert (found.tag_coverage, found.faithfulness) == (1.0, 1.0)
    assert (found.invented, found.invented_sounds) == (0.0, 0)


def test_every_class_is_named_by_its_own_name_and_is_no_invention() -> None:
    said = {tag: wording(spoken_tag(tag)) for tag in display_names()}
    assert [tag for tag, text in said.items() if tag_coverage([tag], text) < 1] == []
    assert [tag for tag, text in said.items() if invented_sounds(wording(""), [tag], text)] == []


@given(st.text(max_size=80))
def test_any_text_is_judged(answer: str) -> None:
    found = _judge("A dog barks.", DOG, answer)
    assert found.n_words == len(wording(answer).words)


def _row(clip: int, enriched: str, **measures: Any) -> dict[str, Any]:
    row: dict[str, Any] = {
        "clip_id": f"demo/{clip}",
        "original": "A dog's bark is loud.",
        "tags": DOG,
        "prompt_id": "p",
        "model": "m",
        "revision": "r",
        "sampling": "{}",
        "enriched": enriched,
        "attempt": 0,
        "n_words": len(enriched.split()),
        "n_tokens": 0,
        "tag_coverage": 1.0,
        "original_coverage": 0.5,
        "faithfulness": 1.0,
        "invented": 0.0,
        "invented_sounds": 0,
        "reason": "",
        "error": "",
        "requests": 1,
        "prompt_tokens": 100,
        "answer_tokens": 10,
        **measures,
    }
    return row | {"kept": row["reason"] == ""}


def test_metrics_by_hand(tmp_path: Path) -> None:
    shards = [
        [
            _row(0, "A dog."),
            _row(1, "A cat and a dog.", invented=0.5, invented_sounds=1, faithfulness=0.5),
            _row(2, "", reason="request_failed", requests=0, tag_coverage=0.0, faithfulness=0.0),
        ],
        [],
        [
            _row(3, "A dog.", attempt=2, requests=3, original_coverage=1.0, tag_coverage=0.5),
            _row(4, "A dog.", reason="copy", tag_coverage=0.0, invented=0.25),
        ],
    ]
    for index, rows in enumerate(shards):
        write_rows(tmp_path / shard_name(index), rows, CAPTIONS, {})
    assert caption_metrics(tmp_path) == {
        "rows": 5,
        "kept": 3,
        "kept_share": 0.6,
        "rejected": dict.fromkeys(REASONS, 0) | {"request_failed": 1, "copy": 1},
        "coverage_original": 0.6667,  # of 0.5, 0.5, 1
        "coverage_enriched": 0.8333,  # of 1, 1, 0.5
        "faithfulness": 0.8333,
        "invented": 0.1667,
        "invented_sounds": 0.3333,
        "words_enriched": 3.0,  # of 2, 5, 2
        "words_original": 5.0,
        "needless_detail": 0.5,  # clips 1 and 4 of the four answered
        "dropped_labels": 0.375,  # of 0, 0, 0.5, 1
        "duplicates": 1,  # clip 3 says what clip 0 says; clip 4 is not kept
        "retried": 1,
        "requests": 6,
        "prompt_tokens": 500,
        "answer_tokens": 50,
    }


def test_metrics_of_no_rows(tmp_path: Path) -> None:
    write_rows(tmp_path / shard_name(0), [], CAPTIONS, {})
    found = caption_metrics(tmp_path)
    assert found["rejected"] == dict.fromkeys(REASONS, 0)
    assert {found[name] for name in found if name != "rejected"} == {0}
