"""captions: repeated requests for a caption, the cache and its keys, prompts, limits of tags."""

import asyncio
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from captions_inputs import config

from flap.captions.cache import Completion, CompletionCache, Usage
from flap.captions.cached_client import CachedClient, tidy
from flap.captions.candidates import Candidates
from flap.captions.client import Failure
from flap.captions.prompt import Prompt, limit_tags, load_prompt, spoken_tag
from flap.captions.request import CaptionInput, RequestBuilder
from flap.core.errors import UserError

CAPTION = CaptionInput("d/0", "A dog barks.", ("Dog", "Rain"))
GOOD = "A dog is barking in the rain."


def requests(prompt: str = "few_shot", **changes: Any) -> RequestBuilder:
    return RequestBuilder(load_prompt(prompt), "llm", "w" * 64, config(**changes))


def candidates_of(*completions: Completion | Failure, **changes: Any) -> Candidates:
    """Candidates with these completions, as long as they are not complete."""
    candidates = Candidates(CAPTION, requests(**changes))
    for completion in completions:
        if not candidates.is_complete:
            candidates.add(completion)
    return candidates


def stopped(text: str, **more: Any) -> Completion:
    return Completion(text, "stop", **more)


def test_the_row_is_the_first_completion_that_passes() -> None:
    completions = [stopped("there is a dog barks", prompt_tokens=9, answer_tokens=4)]
    completions += [stopped(GOOD, prompt_tokens=9, answer_tokens=6), stopped("not requested")]
    row = candidates_of(*completions, tries=3).row()
    assert (row["enriched"], row["kept"], row["reason"], row["attempt"]) == (GOOD, True, "", 1)
    assert (row["requests"], row["prompt_tokens"], row["answer_tokens"]) == (2, 18, 10)
    assert 6 < row["n_tokens"] <= 6 + 3  # the opening has up to 3 words
    assert row["original_coverage"] == 0.5


def test_the_row_is_the_first_completion_if_none_passes() -> None:
    candidates = candidates_of(stopped("there is a dog barks"), stopped(""), tries=2)
    assert candidates.is_complete
    row = candidates.row()
    assert (row["enriched"], row["attempt"], row["kept"]) == ("there is a dog barks", 0, False)


def test_a_failure_ends_the_requests_and_is_in_the_row() -> None:
    candidates = candidates_of(Failure("500: broken"), stopped(GOOD), tries=3)
    row = candidates.row()
    assert candidates.is_complete and candidates.has_failed
    assert (row["reason"], row["error"], row["requests"]) == ("request_failed", "500: broken", 0)
    second = candidates_of(stopped("there is a dog barks"), Failure("500: broken"), tries=3)
    assert second.has_failed and second.row()["reason"] != "request_failed"


def test_without_tags_no_request_is_needed() -> None:
    candidates = Candidates(CaptionInput("d/0", "A dog barks.", ()), requests())
    assert candidates.is_complete
    row = candidates.row()
    assert (row["reason"], row["requests"]) == ("no_tags", 0)


def test_attempts_differ_by_opening_or_seed() -> None:
    greedy, sampled = requests(tries=9), requests("paper_vicuna", temperature=0.7, tries=9)
    assert greedy.max_attempts == len(greedy.prompt.openings)
    assert sampled.max_attempts == 9
    assert len({str(greedy.body(CAPTION, i)["prompt"]) for i in range(4)}) == 4
    assert {greedy.body(CAPTION, i)["seed"] for i in range(4)} == {0}
    assert [sampled.body(CAPTION, i)["seed"] for i in range(3)] == [0, 1, 2]


@pytest.mark.parametrize("name", ["few_shot", "paper_chat", "paper_vicuna"])
def test_prompts_contain_the_request_of_the_paper(name: str) -> None:
    prompt = load_prompt(name)
    caption = CaptionInput("", 'It {rains} <b>\n"now".', ("Male speech, man speaking", "Rain"))
    body = RequestBuilder(prompt, "llm", "", config()).body(caption, 0)
    text = body["prompt"] if prompt.form == "completion" else body["messages"][-1]["content"]
    assert "Describe a situation with male speech, rain sounds and combine it with" in text
    assert caption.original in text
    assert prompt.id.startswith(f"{name}-")


def test_the_cache_key_covers_the_weights_and_the_request_only() -> None:
    def key(of: RequestBuilder, attempt: int = 0) -> bytes:
        return of.key(CAPTION, attempt)

    base = requests()
    assert key(base) == key(requests(max_words=3, min_tag_coverage=0.9, concurrency=1, tries=1))
    fields = base.prompt.model_dump() | {"id": "renamed"}
    renamed = Prompt.model_validate(fields)
    assert key(replace(base, prompt=renamed)) == key(base)
    shorter = Prompt.model_validate(fields | {"examples": fields["examples"][:1]})
    others = [
        key(replace(base, prompt=shorter)),
        key(replace(base, weights_sha256="other weights")),
        key(requests(max_tokens=3)),
        key(requests(seed=5)),
        key(requests("paper_chat")),
        key(requests("paper_vicuna")),
        key(base, attempt=1),
    ]
    assert len({key(base), *others}) == 8


def test_equal_requests_are_sent_once_even_at_the_same_time(tmp_path: Path) -> None:
    sent: Counter[str] = Counter()

    async def send(body: dict[str, Any]) -> Completion:
        sent[body["prompt"]] += 1
        await asyncio.sleep(0.01)
        return stopped(" barks. ", seconds=0.5)

    async def go() -> None:
        with CompletionCache(tmp_path / "c.sqlite") as cache:
            client = CachedClient(send, cache, requests(), "x")
            captions = [CaptionInput("", text, ("Dog",)) for text in ["a", "a", "b", "a"]]
            found = await asyncio.gather(*(client.complete(caption, 0) for caption in captions))
            texts = [completion.text for completion in found if isinstance(completion, Completion)]
            assert len(texts) == 4 and all(text.endswith(" barks.") for text in texts)
            assert cache.usage("x") == Usage(2, 1.0)
            assert cache.usage("y") == Usage(0, 0.0)

    asyncio.run(go())
    asyncio.run(go())
    assert set(sent.values()) == {1} and len(sent) == 2


def test_a_failure_is_not_cached(tmp_path: Path) -> None:
    answers = iter([Failure("503: busy"), stopped("x")])

    async def send(_: dict[str, Any]) -> Completion | Failure:
        return next(answers)

    with CompletionCache(tmp_path / "c.sqlite") as cache:
        client = CachedClient(send, cache, requests(), "x")
        assert asyncio.run(client.complete(CAPTION, 0)) == Failure("503: busy")
        assert isinstance(asyncio.run(client.complete(CAPTION, 0)), Completion)


def test_the_cache_finds_many_keys_at_once_and_refuses_other_files(tmp_path: Path) -> None:
    keys = [i.to_bytes(16, "big") for i in range(70_000)]
    with CompletionCache(tmp_path / "c.sqlite") as cache:
        for key in keys[::1000]:
            cache.put(key, stopped(key.hex()), "x")
        assert set(cache.get_many(keys)) == set(keys[::1000])
    (tmp_path / "broken.sqlite").write_text("no database" * 1000)
    with pytest.raises(UserError, match="not a usable cache"):
        CompletionCache(tmp_path / "broken.sqlite")


def test_the_best_tags_within_the_limits_are_taken() -> None:
    labels = ["Dog", "Male speech, man speaking", "Rain on surface", "Cat"]
    assert limit_tags(labels, 9, 99) == tuple(labels)
    assert limit_tags(labels, 2, 99) == tuple(labels[:2])
    assert limit_tags(labels, 9, 5) == tuple(labels[:2])  # dog and male speech have 3 words
    assert limit_tags(["Rain on surface"], 9, 1) == ("Rain on surface",)
    assert limit_tags([], 9, 9) == ()


def test_spoken_tags_tidy_answers_and_unknown_prompts() -> None:
    assert spoken_tag("Fire engine, fire truck (siren)") == "fire engine"
    assert tidy(' "A dog\n barks." ') == "A dog barks."
    with pytest.raises(UserError, match=r"no prompt 'nope'; the folder has few_shot"):
        load_prompt("nope")
