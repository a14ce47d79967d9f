"""captions: each reason to reject an answer, each measure, and the metrics of a table."""

from pathlib import Path
from typing import Any

import pytest
from captions_inputs import config
from hypothesis import given
from hypothesis import strategies as st

from flap.captions.checks import (
    REASONS,
    CheckResult,
    check_caption,
    faithfulness,
    invented,
    invented_sounds,
    is_english,
    tag_coverage,
)
from flap.captions.metrics import caption_metrics
from flap.captions.prompt import spoken_tag
from flap.captions.words import implied_sounds, tokenize, word_lists
from flap.core.audioset import display_names
from flap.core.schemas import CAPTIONS
from flap.core.shards import shard_name, write_rows

DOG, RAIN = ["Dog"], ["Rain", "Siren"]


def _check(
    original: str, tags: list[str], answer: str | None, finish_reason: str = "stop"
) -> CheckResult:
    return check_caption(
        original, tags, answer, finish_reason=finish_reason, n_tokens=0, limits=config()
    )


@pytest.mark.parametrize(
    ("original", "tags", "answer", "finish_reason", "reason"),
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
def test_reason_of_an_answer(
    original: str, tags: list[str], answer: str | None, finish_reason: str, reason: str
) -> None:
    assert _check(original, tags, answer, finish_reason).reason == reason
    assert reason in {"", *REASONS}


@pytest.mark.parametrize(("n_tokens", "reason"), [(10, ""), (11, "too_long")])
def test_more_than_max_text_tokens_is_too_long(n_tokens: int, reason: str) -> None:
    limits = config(max_text_tokens=10)
    result = check_caption(
        "A dog barks.",
        DOG,
        "A dog is barking.",
        finish_reason="stop",
        n_tokens=n_tokens,
        limits=limits,
    )
    assert result.reason == reason


@pytest.mark.parametrize(("limit", "reason"), [(1, ""), (0, "invented_sounds")])
def test_max_invented_sounds_are_allowed(limit: int, reason: str) -> None:
    result = check_caption(
        "A dog barks loudly at a red car.",
        DOG,
        "A dog barking loudly at a red car, with a cat.",
        finish_reason="stop",
        n_tokens=0,
        limits=config(max_invented_sounds=limit),
    )
    assert result.reason == reason


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
def test_refusals_chat_and_echoes_are_told_from_captions(answer: str, reason: str) -> None:
    assert _check("A dog barks.", DOG, answer).reason == reason


@pytest.mark.parametrize(
    "original",
    [
        "A man says I'm sorry.",
        "Okay, says a man, I can't hear you.",
        "A man says here is the situation: I cannot help.",
    ],
)
def test_words_of_the_original_are_no_refusal_or_chat(original: str) -> None:
    assert _check(original, ["Dog"], f"{original} A dog barks.").reason == ""


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
    assert not is_english(answer, tokenize(answer))
    assert _check("A dog barks.", DOG, answer).reason == "non_english"


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
def test_english_without_function_words_is_english(answer: str) -> None:
    assert is_english(answer, tokenize(answer))


def test_word_lists_do_not_contradict_each_other() -> None:
    lists = word_lists()
    assert not lists.foreign & lists.stop
    assert not lists.foreign & implied_sounds().keys()
    assert not lists.silent & implied_sounds().keys()


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
    assert tag_coverage([tag], tokenize(text)) == float(covered)


def test_shares_by_hand() -> None:
    # Of dog, bark, twice and yard, three are kept; "barks" and "barking" have one stem.
    dogs = tokenize("In the yard, dogs are barking.")
    assert faithfulness(tokenize("A dog barks twice in the yard."), dogs) == 0.75
    assert faithfulness(tokenize("Bells rang."), tokenize("a bell rings")) == 1.0
    assert faithfulness(tokenize("A dog\u2019s café."), tokenize("the dog's cafe")) == 1.0
    assert tag_coverage(["Rain", "Dog"], tokenize("the dog is wet")) == 0.5
    # Of bark, rain, lion and roar, the last two are invented.
    text = tokenize("Barking in the rain as a lion roars.")
    assert invented(tokenize("Barking."), ["Rain"], text) == 0.5
    assert invented(tokenize(""), [], tokenize("")) == 0.0


def test_a_check_result_by_hand() -> None:
    found = _check("A dog barks in a yard.", ["Dog", "Rain"], "Rain and a dog barking, and a cat.")
    # The original names one of two tags. Of dog, bark and yard, two are kept. Of rain, dog, bark
    # and cat, the cat is invented, and is a sound.
    assert found == CheckResult(8, 0, 1.0, 0.5, 2 / 3, 0.25, 1, "invented_sounds")


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
        # Words of the list `silent`.
        ("A dog barks.", DOG, "Inside a small room, a dog makes noises in silence.", 0),
        ("A dog barks.", DOG, "A dog starts running outside with a low tone.", 0),
        ("A dog barks.", DOG, "A dog is playing on a wood and metal table in a park.", 0),
        ("A bell tolls.", ["Bell"], "A bell is ringing in a white house by the road.", 0),
        # Words of one group in `same` or `covers`.
        ("A phone rings.", ["Ringtone"], "A telephone rings.", 0),
        ("A dog yaps.", DOG, "A puppy barks.", 0),
        ("Birds tweet.", ["Bird"], "Birds are chirping and singing.", 0),
        ("A man speaks.", ["Speech"], "The voice of a man in a conversation.", 0),
        ("A cat.", ["Cat"], "A cat meows.", 0),
        # Hypernyms of a tag or of a word of the original.
        ("It is loud.", DOG, "An animal, a pet.", 0),
        ("It is loud.", ["Car"], "A vehicle with an engine in traffic.", 0),
        ("A violin plays.", ["Violin, fiddle"], "A fiddle plays music, an instrument.", 0),
        ("Rain falls.", ["Rain"], "Water falls as rain.", 0),
        # Another alternative of the tag.
        ("It is loud.", ["Fire engine, fire truck (siren)"], "A siren of a fire engine.", 0),
        ("", [], "", 0),
    ],
)
def test_invented_sounds_by_hand(original: str, tags: list[str], answer: str, sounds: int) -> None:
    assert invented_sounds(tokenize(original), tags, tokenize(answer)) == sounds


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
    found = _check(original, tags, answer)
    shares = found[1:5]
    assert all(0.0 <= share <= 1.0 for share in shares)
    assert 0 <= found.invented_sounds <= found.n_words
    assert found.reason in {"", *REASONS}
    assert found.original_coverage == tag_coverage(tags, tokenize(original))


@given(_TEXTS, _TAGS)
def test_the_original_with_all_tags_has_perfect_measures(original: str, tags: list[str]) -> None:
    answer = f"{original}, with {' and '.join(map(spoken_tag, tags))}."
    found = _check(original, tags, answer)
    assert (found.tag_coverage, found.faithfulness) == (1.0, 1.0)
    assert (found.invented, found.invented_sounds) == (0.0, 0)


def test_the_name_of_a_class_covers_the_class_and_is_not_invented() -> None:
    texts = {tag: tokenize(spoken_tag(tag)) for tag in display_names()}
    assert [tag for tag, text in texts.items() if tag_coverage([tag], text) < 1] == []
    assert [tag for tag, text in texts.items() if invented_sounds(tokenize(""), [tag], text)] == []


@given(st.text(max_size=80))
def test_any_text_can_be_checked(answer: str) -> None:
    found = _check("A dog barks.", DOG, answer)
    assert found.n_words == len(tokenize(answer).words)


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
        "needless_detail": 0.5,  # clips 1 and 4 of four with an answer
        "dropped_labels": 0.375,  # of 0, 0, 0.5, 1
        "duplicates": 1,  # clip 3 equals clip 0; clip 4 is not kept
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
