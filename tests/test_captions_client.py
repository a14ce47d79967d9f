"""The client against a server that fails in every way, and the endpoints' turns."""

import asyncio
from typing import Any

import pytest
from fake_llm_server import MODEL, Behaviour, fake_llm_server

from flap.captions.cache import Answer
from flap.captions.client import Client, Failure, Patience
from flap.captions.endpoints import Endpoint, Endpoints, next_endpoint
from flap.core.errors import UserError

QUICK = Patience(timeout_s=0.5, attempts=3, first_wait_s=0.01)
ASKED = 'Describe a situation with rain sounds and combine it with "{}" together.\nAnswer:'


def body(caption: str) -> dict[str, Any]:
    return {"prompt": ASKED.format(caption), "max_tokens": 9}


async def ask(urls: tuple[str, ...], *captions: str, key: str = "k") -> list[Answer | Failure]:
    async with Client(Endpoints(urls, key, MODEL), 8, QUICK) as client:
        return await asyncio.gather(*(client.ask(body(caption)) for caption in captions))


def asked(behaviour: Behaviour, *captions: str, key: str = "k") -> list[Answer | Failure]:
    with fake_llm_server(behaviour) as url:
        return asyncio.run(ask((url,), *captions, key=key))


def tries(behaviour: Behaviour, caption: str) -> int:
    return behaviour.asked[ASKED.format(caption)]


def test_an_answer_has_its_text_and_its_cost() -> None:
    (answer,) = asked(Behaviour(delay_s=0.05), "good")
    assert isinstance(answer, Answer)
    assert (answer.text, answer.finish) == (" good along with rain.", "stop")
    assert (answer.prompt_tokens, answer.answer_tokens) == (10, 4)
    assert answer.seconds >= 0.05


def test_chat_is_asked_by_messages() -> None:
    async def go(url: str) -> Answer | Failure:
        async with Client(Endpoints((url,), "k", MODEL), 8, QUICK) as client:
            messages = [{"role": "user", "content": ASKED.format("good")}]
            return await client.ask({"messages": messages})

    with fake_llm_server(Behaviour()) as url:
        answer = asyncio.run(go(url))
    assert isinstance(answer, Answer) and answer.text == " good along with rain."


@pytest.mark.parametrize(
    ("status", "times"), [(400, 1), (413, 1), (422, 1), (429, 3), (500, 3), (503, 3)]
)
def test_refusals_are_final_and_failures_are_tried_again(status: int, times: int) -> None:
    behaviour = Behaviour(fail_status={"bad": status})
    good, bad = asked(behaviour, "good", "bad")
    assert isinstance(good, Answer)
    assert isinstance(bad, Failure) and bad.error.startswith(f"{status}: ")
    assert f"told to fail with {status}" in bad.error
    assert (tries(behaviour, "good"), tries(behaviour, "bad")) == (1, times)


@pytest.mark.parametrize(
    ("said", "error"),
    [
        ('{"id": "x", "choices": [{"te', "no JSON"),
        ('{"id": "x", "choices": []}', "an answer without a choice"),
        ('{"id": "x", "choices": [null]}', "an answer without a choice"),
        ('{"id": "x", "choices": [{"index": 0}]}', "an answer without a choice"),
        ('{"id": "x"}', "an answer without a choice"),
        ("[]", "no JSON object"),
        ("", "no JSON"),
    ],
)
def test_what_is_no_answer_is_tried_again(said: str, error: str) -> None:
    behaviour = Behaviour(say={"odd": said})
    (odd,) = asked(behaviour, "odd")
    assert isinstance(odd, Failure) and error in odd.error
    assert tries(behaviour, "odd") == QUICK.attempts


def test_an_empty_text_is_an_answer() -> None:
    said = '{"choices": [{"text": null, "finish_reason": "stop"}]}'
    (answer,) = asked(Behaviour(say={"mute": said}), "mute")
    assert isinstance(answer, Answer) and answer.text == ""


def test_a_request_that_hangs_is_given_up() -> None:
    behaviour = Behaviour(hang_on="slow")
    good, slow = asked(behaviour, "good", "slow")
    assert isinstance(good, Answer)
    assert isinstance(slow, Failure) and "TimeoutError" in slow.error
    assert tries(behaviour, "slow") == QUICK.attempts


def test_passing_errors_pass() -> None:
    for behaviour in (Behaviour(fail_first=2), Behaviour(busy_first=2)):
        (answer,) = asked(behaviour, "good")
        assert isinstance(answer, Answer)
        assert tries(behaviour, "good") == 3


def test_no_more_at_once_than_asked_for() -> None:
    behaviour = Behaviour(delay_s=0.02)
    answers = asked(behaviour, *(f"caption {i}" for i in range(40)))
    assert all(isinstance(answer, Answer) for answer in answers)
    assert behaviour.most_at_once == 8


def test_wrong_key_wrong_model_and_no_server_end_the_run() -> None:
    with pytest.raises(UserError, match="401"):
        asked(Behaviour(api_key="right"), "good", key="wrong")

    async def other(url: str) -> None:
        async with Client(Endpoints((url,), "k", "other-llm"), 8, QUICK):
            pass

    with (
        fake_llm_server(Behaviour()) as url,
        pytest.raises(UserError, match="--served-model-name other-llm"),
    ):
        asyncio.run(other(url))
    with pytest.raises(UserError, match=f"no server answers at {url}; answers so far are kept"):
        asyncio.run(ask((url,), "good"))


def test_a_server_that_ends_while_it_is_asked_ends_the_run() -> None:
    async def go() -> None:
        with fake_llm_server(Behaviour()) as url:
            client = await Client(Endpoints((url,), "k", MODEL), 8, QUICK).__aenter__()
        try:
            await client.ask(body("good"))
        finally:
            await client.__aexit__()

    with pytest.raises(UserError, match="no server answers"):
        asyncio.run(go())


def test_one_server_of_two_may_be_gone() -> None:
    with fake_llm_server(Behaviour()) as gone:
        pass
    behaviour = Behaviour()
    with fake_llm_server(behaviour) as url:
        answers = asyncio.run(ask((gone, url), *(f"caption {i}" for i in range(20))))
    assert all(isinstance(answer, Answer) for answer in answers)
    assert set(behaviour.asked.values()) == {1}


def test_the_quick_server_is_asked_more_than_the_slow_one() -> None:
    quick, slow = Behaviour(delay_s=0.001), Behaviour(delay_s=0.2)
    with fake_llm_server(quick) as first, fake_llm_server(slow) as second:
        asyncio.run(ask((first, second), *(f"caption {i}" for i in range(100))))
    assert quick.asked.total() > 3 * slow.asked.total() > 0


def test_a_failing_server_rests_twice_as_long_each_time() -> None:
    one, other = Endpoint("one"), Endpoint("other")
    one.failed(0.01, None)
    assert next_endpoint([one, other]) is other
    first = one.rest_s
    one.failed(0.01, None)  # sent before
    assert one.rest_s <= first <= 0.01
    while one.rest_s:
        pass
    one.failed(0.01, None)
    assert 0.01 < one.rest_s <= 0.02
    one.answered()
    one.failed(0.01, told_s=5)
    assert 4 < one.rest_s <= 5
