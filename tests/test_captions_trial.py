"""Questions asked again, remembered, cut to a budget; keys that change with what is sent."""

import asyncio
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from captions_inputs import config

from flap.captions.asker import Asked, Asker, Question, tidy
from flap.captions.cache import Answer, AnswerCache, Spent
from flap.captions.client import Failure
from flap.captions.prompt import Prompt, load_prompt, spoken_tag, within_budget
from flap.captions.trial import Trial
from flap.core.errors import UserError

QUESTION = Question("d/0", "A dog barks.", ("Dog", "Rain"))
GOOD = "A dog is barking in the rain."


def asked(prompt: str = "few_shot", **changes: Any) -> Asked:
    return Asked(load_prompt(prompt), "llm", "w" * 64, config(**changes))


def trial_of(*answers: Answer | Failure, **changes: Any) -> Trial:
    """As far as it asks for them."""
    trial = Trial(QUESTION, asked(**changes))
    for answer in answers:
        if not trial.is_over:
            trial.add(answer)
    return trial


def said(text: str, **more: Any) -> Answer:
    return Answer(text, "stop", **more)


def test_the_first_answer_that_is_kept_is_the_row() -> None:
    answers = [said("there is a dog barks", prompt_tokens=9, answer_tokens=4)]
    answers += [said(GOOD, prompt_tokens=9, answer_tokens=6), said("never asked")]
    row = trial_of(*answers, tries=3).row()
    assert (row["enriched"], row["kept"], row["reason"], row["attempt"]) == (GOOD, True, "", 1)
    assert (row["requests"], row["prompt_tokens"], row["answer_tokens"]) == (2, 18, 10)
    assert 6 < row["n_tokens"] <= 6 + 3  # and the opening's words
    assert row["original_coverage"] == 0.5


def test_the_first_answer_is_the_row_if_none_is_kept() -> None:
    trial = trial_of(said("there is a dog barks"), said(""), tries=2)
    assert trial.is_over
    row = trial.row()
    assert (row["enriched"], row["attempt"], row["kept"]) == ("there is a dog barks", 0, False)


def test_a_failure_ends_it_and_is_told() -> None:
    trial = trial_of(Failure("500: broken"), said(GOOD), tries=3)
    row = trial.row()
    assert trial.is_over and trial.has_failed
    assert (row["reason"], row["error"], row["requests"]) == ("request_failed", "500: broken", 0)
    again = trial_of(said("there is a dog barks"), Failure("500: broken"), tries=3)
    assert again.has_failed and again.row()["reason"] != "request_failed"


def test_without_tags_nothing_is_asked() -> None:
    trial = Trial(Question("d/0", "A dog barks.", ()), asked())
    assert trial.is_over
    assert (trial.row()["reason"], trial.row()["requests"]) == ("no_tags", 0)


def test_another_try_is_asked_otherwise() -> None:
    greedy, drawn = asked(tries=9), asked("paper_vicuna", temperature=0.7, tries=9)
    assert greedy.prompt.attempts(greedy.config) == len(greedy.prompt.openings)
    assert drawn.prompt.attempts(drawn.config) == 9
    assert len({str(greedy.body(QUESTION, i)["prompt"]) for i in range(4)}) == 4
    assert {greedy.body(QUESTION, i)["seed"] for i in range(4)} == {0}
    assert [drawn.body(QUESTION, i)["seed"] for i in range(3)] == [0, 1, 2]


@pytest.mark.parametrize("name", ["few_shot", "paper_chat", "paper_vicuna"])
def test_prompts_put_the_paper_request(name: str) -> None:
    prompt = load_prompt(name)
    question = Question("", 'It {rains} <b>\n"now".', ("Male speech, man speaking", "Rain"))
    body = Asked(prompt, "llm", "", config()).body(question, 0)
    text = body["prompt"] if prompt.form == "completion" else body["messages"][-1]["content"]
    assert "Describe a situation with male speech, rain sounds and combine it with" in text
    assert question.original in text
    assert prompt.id.startswith(f"{name}-")


def test_only_what_is_sent_is_in_the_key() -> None:
    def key(of: Asked, attempt: int = 0) -> bytes:
        return of.key(of.body(QUESTION, attempt))

    base = asked()
    assert key(base) == key(asked(max_words=3, min_tag_coverage=0.9, concurrency=1, tries=1))
    written = base.prompt.model_dump() | {"id": "renamed"}
    prompt = Prompt.model_validate(written)
    assert key(Asked(prompt, "llm", base.weights, base.config)) == key(base)
    examples = Prompt.model_validate(written | {"examples": written["examples"][:1]})
    others = [
        key(Asked(examples, "llm", base.weights, base.config)),
        key(Asked(prompt, "llm", "other weights", base.config)),
        key(asked(max_tokens=3)),
        key(asked(seed=5)),
        key(asked("paper_chat")),
        key(asked("paper_vicuna")),
        key(base, attempt=1),
    ]
    assert len({key(base), *others}) == 8


def test_equal_questions_are_asked_once_even_at_the_same_time(tmp_path: Path) -> None:
    sent: Counter[str] = Counter()

    async def send(body: dict[str, Any]) -> Answer:
        sent[body["prompt"]] += 1
        await asyncio.sleep(0.01)
        return said(" barks. ", seconds=0.5)

    async def go() -> None:
        with AnswerCache(tmp_path / "c.sqlite") as cache:
            asker = Asker(send, cache, asked(), "x")
            questions = [Question("", caption, ("Dog",)) for caption in ["a", "a", "b", "a"]]
            answers = await asyncio.gather(*(asker(question, 0) for question in questions))
            texts = [answer.text for answer in answers if isinstance(answer, Answer)]
            assert len(texts) == 4 and all(text.endswith(" barks.") for text in texts)
            assert cache.spent("x") == Spent(2, 1.0)
            assert cache.spent("y") == Spent(0, 0.0)

    asyncio.run(go())
    asyncio.run(go())
    assert set(sent.values()) == {1} and len(sent) == 2


def test_a_failure_is_not_remembered(tmp_path: Path) -> None:
    answers = iter([Failure("503: busy"), said("x")])

    async def send(_: dict[str, Any]) -> Answer | Failure:
        return next(answers)

    with AnswerCache(tmp_path / "c.sqlite") as cache:
        asker = Asker(send, cache, asked(), "x")
        assert asyncio.run(asker(QUESTION, 0)) == Failure("503: busy")
        assert isinstance(asyncio.run(asker(QUESTION, 0)), Answer)


def test_many_answers_are_had_at_once(tmp_path: Path) -> None:
    keys = [i.to_bytes(16, "big") for i in range(70_000)]
    with AnswerCache(tmp_path / "c.sqlite") as cache:
        for key in keys[::1000]:
            cache.put(key, said(key.hex()), "x")
        assert set(cache.get_many(keys)) == set(keys[::1000])
    (tmp_path / "broken.sqlite").write_text("no database" * 1000)
    with pytest.raises(UserError, match="not a usable cache"):
        AnswerCache(tmp_path / "broken.sqlite")


def test_tags_fit_a_budget_best_first() -> None:
    labels = ["Dog", "Male speech, man speaking", "Rain on surface", "Cat"]
    assert within_budget(labels, 9, 99) == tuple(labels)
    assert within_budget(labels, 2, 99) == tuple(labels[:2])
    assert within_budget(labels, 9, 5) == tuple(labels[:2])  # dog, male speech; 3 words more
    assert within_budget(["Rain on surface"], 9, 1) == ("Rain on surface",)
    assert within_budget([], 9, 9) == ()


def test_small_text_functions() -> None:
    assert spoken_tag("Fire engine, fire truck (siren)") == "fire engine"
    assert tidy(' "A dog\n barks." ') == "A dog barks."
    with pytest.raises(UserError, match=r"no prompt 'nope'; there are few_shot"):
        load_prompt("nope")
