"""captions: the client against servers that fail, and the choice of an endpoint."""

import asyncio
from typing import Any

import pytest
from fake_llm_server import MODEL, Behaviour, fake_llm_server

from flap.captions.cache import Completion
from flap.captions.client import Client, Failure, RetryPolicy
from flap.captions.endpoints import Endpoint, Endpoints, choose_endpoint
from flap.core.errors import UserError

POLICY = RetryPolicy(timeout_s=0.5, attempts=3, first_wait_s=0.01)
REQUEST = 'Describe a situation with rain sounds and combine it with "{}" together.\nAnswer:'


def body(caption: str) -> dict[str, Any]:
    return {"prompt": REQUEST.format(caption), "max_tokens": 9}


async def complete(
    urls: tuple[str, ...], *captions: str, key: str = "k"
) -> list[Completion | Failure]:
    async with Client(Endpoints(urls, key, MODEL), 8, POLICY) as client:
        return await asyncio.gather(*(client.complete(body(caption)) for caption in captions))


def complete_with(
    behaviour: Behaviour, *captions: str, key: str = "k"
) -> list[Completion | Failure]:
    with fake_llm_server(behaviour) as url:
        return asyncio.run(complete((url,), *captions, key=key))


def n_requests(behaviour: Behaviour, caption: str) -> int:
    return behaviour.requests[REQUEST.format(caption)]


def test_a_completion_has_text_tokens_and_seconds() -> None:
    (completion,) = complete_with(Behaviour(delay_s=0.05), "good")
    assert isinstance(completion, Completion)
    assert (completion.text, completion.finish_reason) == (" good along with rain.", "stop")
    assert (completion.prompt_tokens, completion.answer_tokens) == (10, 4)
    assert completion.seconds >= 0.05


def test_messages_go_to_the_chat_endpoint() -> None:
    async def go(url: str) -> Completion | Failure:
        async with Client(Endpoints((url,), "k", MODEL), 8, POLICY) as client:
            messages = [{"role": "user", "content": REQUEST.format("good")}]
            return await client.complete({"messages": messages})

    with fake_llm_server(Behaviour()) as url:
        completion = asyncio.run(go(url))
    assert isinstance(completion, Completion) and completion.text == " good along with rain."


@pytest.mark.parametrize(
    ("status", "times"), [(400, 1), (413, 1), (422, 1), (429, 3), (500, 3), (503, 3)]
)
def test_client_errors_are_final_and_transient_errors_are_retried(status: int, times: int) -> None:
    behaviour = Behaviour(fail_status={"bad": status})
    good, bad = complete_with(behaviour, "good", "bad")
    assert isinstance(good, Completion)
    assert isinstance(bad, Failure) and bad.error.startswith(f"{status}: ")
    assert f"the test asked for status {status}" in bad.error
    assert (n_requests(behaviour, "good"), n_requests(behaviour, "bad")) == (1, times)


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
def test_malformed_answers_are_retried(said: str, error: str) -> None:
    behaviour = Behaviour(reply={"malformed": said})
    (malformed,) = complete_with(behaviour, "malformed")
    assert isinstance(malformed, Failure) and error in malformed.error
    assert n_requests(behaviour, "malformed") == POLICY.attempts


def test_an_empty_text_is_a_completion() -> None:
    said = '{"choices": [{"text": null, "finish_reason": "stop"}]}'
    (completion,) = complete_with(Behaviour(reply={"empty": said}), "empty")
    assert isinstance(completion, Completion) and completion.text == ""


def test_a_request_that_hangs_times_out() -> None:
    behaviour = Behaviour(hang_on="slow")
    good, slow = complete_with(behaviour, "good", "slow")
    assert isinstance(good, Completion)
    assert isinstance(slow, Failure) and "TimeoutError" in slow.error
    assert n_requests(behaviour, "slow") == POLICY.attempts


def test_a_retry_after_transient_errors_succeeds() -> None:
    for behaviour in (Behaviour(fail_first=2), Behaviour(busy_first=2)):
        (completion,) = complete_with(behaviour, "good")
        assert isinstance(completion, Completion)
        assert n_requests(behaviour, "good") == 3


def test_concurrency_limits_the_requests_in_flight() -> None:
    behaviour = Behaviour(delay_s=0.02)
    completions = complete_with(behaviour, *(f"caption {i}" for i in range(40)))
    assert all(isinstance(completion, Completion) for completion in completions)
    assert behaviour.max_in_flight == 8


def test_wrong_key_wrong_model_and_no_server_end_the_run() -> None:
    with pytest.raises(UserError, match="401"):
        complete_with(Behaviour(api_key="right"), "good", key="wrong")

    async def other(url: str) -> None:
        async with Client(Endpoints((url,), "k", "other-llm"), 8, POLICY):
            pass

    with (
        fake_llm_server(Behaviour()) as url,
        pytest.raises(UserError, match="--served-model-name other-llm"),
    ):
        asyncio.run(other(url))
    with pytest.raises(UserError, match=f"no server answers at {url}; answers so far are kept"):
        asyncio.run(complete((url,), "good"))


def test_a_server_that_ends_during_the_run_ends_the_run() -> None:
    async def go() -> None:
        with fake_llm_server(Behaviour()) as url:
            client = await Client(Endpoints((url,), "k", MODEL), 8, POLICY).__aenter__()
        try:
            await client.complete(body("good"))
        finally:
            await client.__aexit__()

    with pytest.raises(UserError, match="no server answers"):
        asyncio.run(go())


def test_one_of_two_servers_may_be_down() -> None:
    with fake_llm_server(Behaviour()) as gone:
        pass
    behaviour = Behaviour()
    with fake_llm_server(behaviour) as url:
        completions = asyncio.run(complete((gone, url), *(f"caption {i}" for i in range(20))))
    assert all(isinstance(completion, Completion) for completion in completions)
    assert set(behaviour.requests.values()) == {1}


def test_the_fast_server_gets_more_requests_than_the_slow_one() -> None:
    fast, slow = Behaviour(delay_s=0.001), Behaviour(delay_s=0.2)
    with fake_llm_server(fast) as first, fake_llm_server(slow) as second:
        asyncio.run(complete((first, second), *(f"caption {i}" for i in range(100))))
    assert fast.requests.total() > 3 * slow.requests.total() > 0


def test_each_failure_doubles_the_backoff() -> None:
    one, other = Endpoint("one"), Endpoint("other")
    one.record_failure(0.01, None)
    assert choose_endpoint([one, other]) is other
    first = one.backoff_s
    one.record_failure(0.01, None)  # of a request that was sent earlier: ignored
    assert one.backoff_s <= first <= 0.01
    while one.backoff_s:
        pass
    one.record_failure(0.01, None)
    assert 0.01 < one.backoff_s <= 0.02
    one.record_success()
    one.record_failure(0.01, retry_after_s=5)
    assert 4 < one.backoff_s <= 5
