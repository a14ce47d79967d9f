"""captions: the audit by hand, prompts, the client's errors, and the stage against a fake."""

import asyncio
import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections import Counter
from contextlib import closing
from pathlib import Path

import pandas as pd
import pytest
from captions_inputs import Inputs, config, write_inputs
from fake_llm_server import MODEL, Behaviour, fake_llm_server

from flap.captions.audit import REASONS, audit, faithfulness, invented, tag_coverage
from flap.captions.cache import Answer, AnswerCache
from flap.captions.client import CachedAsker
from flap.captions.endpoints import Client, Endpoints, Patience, tidy
from flap.captions.enrich import Origin, Question, enrich_one
from flap.captions.prompt import load_prompt, spoken_tag
from flap.errors import UserError
from pipeline import captions as stage

DOG, RAIN = ["Dog"], ["Rain", "Siren"]
QUICK = Patience(timeout_s=0.5, attempts=3, first_wait_s=0.01)


@pytest.mark.parametrize(
    ("original", "tags", "answer", "finish", "reason"),
    [
        ("A dog barks.", RAIN, "A dog barks in the rain as a siren wails.", "stop", ""),
        ("A dog barks.", DOG, None, "", "request_failed"),
        ("A dog barks.", [], None, "", "no_tags"),
        ("A dog barks.", DOG, " ...", "stop", "empty"),
        ("A dog barks.", DOG, "A dog is barking and", "length", "truncated"),
        ("A dog barks.", DOG, "Собака лает, a dog barks.", "stop", "non_english"),
        ("A dog barks.", DOG, "Dog sounds and combine it with a dog barks.", "stop", "prompt_echo"),
        ("A dog barks.", DOG, "I'm sorry, I cannot hear a dog barking.", "stop", "refusal"),
        ("A dog barks.", DOG, "A dog barks " + "very " * 60 + "loudly.", "stop", "too_long"),
        ("A dog barks.", DOG, "A dog barks and a dog barks again.", "stop", "repetition"),
        ("A dog barks, a dog barks.", DOG, "A dog barking, then a dog barking.", "stop", ""),
        ("A dog barks.", DOG, "there is a dog barks", "stop", "copy"),
        ("A dog barks at a red car.", DOG, "There is a dog.", "stop", "low_faithfulness"),
        ("A dog barks.", [*RAIN, "Bell"], "Dogs are barking.", "stop", "low_tag_coverage"),
        ("A dog barks.", DOG, "A dog barking, a lion eating grapes.", "stop", "invented"),
    ],
)
def test_audit_reasons(
    original: str, tags: list[str], answer: str | None, finish: str, reason: str
) -> None:
    assert audit(original, tags, answer, finish, config()).reason == reason
    assert reason in {"", *REASONS}


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
        ("Dog", "a hotdog stand", False),
        ("Wind", "a window rattles", False),
        ("Siren", "a dog barks", False),
    ],
)
def test_tag_coverage_by_hand(tag: str, text: str, covered: bool) -> None:
    assert tag_coverage([tag], text) == float(covered)


def test_shares_by_hand() -> None:
    # dog, bark, twice, yard: three of four are kept, by stem and irregular form.
    kept = faithfulness("A dog barks twice in the yard.", "In the yard, dogs are barking.")
    assert kept == 0.75
    assert faithfulness("Bells rang.", "a bell rings") == 1.0
    assert tag_coverage(["Rain", "Dog"], "the dog is wet") == 0.5
    # bark, rain, lion, roar: the last two come from nowhere.
    assert invented("Barking.", ["Rain"], "Barking in the rain as a lion roars.") == 0.5
    assert invented("", [], "") == 0.0


@pytest.mark.parametrize("name", ["few_shot", "paper_chat", "paper_vicuna"])
def test_prompts_put_the_paper_request(name: str) -> None:
    prompt = load_prompt(name)
    text = prompt.text(["Male speech, man speaking", "Rain"], "It {rains}.")
    assert "Describe a situation with male speech, rain sounds and combine it with" in text
    assert "It {rains}." in text
    assert prompt.id.startswith(f"{name}-")
    tries = range(prompt.attempts(3))
    openings = [prompt.opening(["Rain"], "x", attempt) for attempt in tries]
    assert len(set(openings)) == (3 if prompt.openings else 1)


def test_small_text_functions() -> None:
    assert spoken_tag("Fire engine, fire truck (siren)") == "fire engine"
    assert tidy(' "A dog\n barks." ') == "A dog barks."
    with pytest.raises(UserError, match=r"no prompt 'nope'; there are few_shot"):
        load_prompt("nope")


def _ask(behaviour: Behaviour, *captions: str, key: str = "k") -> list[Answer | None]:
    prompt, settings = load_prompt("few_shot"), config(concurrency=8)

    async def go(url: str) -> list[Answer | None]:
        client = Client(Endpoints((url,), key, MODEL), prompt, settings, QUICK)
        try:
            await client.check()
            return await asyncio.gather(*(client.ask(["Rain"], caption, 0) for caption in captions))
        finally:
            await client.close()

    with fake_llm_server(behaviour) as url:
        return asyncio.run(go(url))


def test_refused_and_hanging_requests_are_none_and_the_others_go_on() -> None:
    behaviour = Behaviour(fail_status={"refused": 400, "broken": 500}, hang_on="hanging")
    good, refused, broken, hanging = _ask(behaviour, "good", "refused", "broken", "hanging")
    assert good is not None
    assert good.text.endswith("good along with rain.")
    assert refused is broken is hanging is None
    tries = sorted(behaviour.asked.values())
    assert tries == [1, 1, QUICK.attempts, QUICK.attempts], "a 400 is not tried again"


def test_passing_errors_are_tried_again() -> None:
    behaviour = Behaviour(fail_first=2)
    (answer,) = _ask(behaviour, "good")
    assert answer is not None
    assert behaviour.asked.total() == 3


def test_wrong_key_wrong_model_and_no_server_end_the_run() -> None:
    with pytest.raises(UserError, match="401"):
        _ask(Behaviour(api_key="right"), "good", key="wrong")
    prompt = load_prompt("few_shot")
    with fake_llm_server(Behaviour()) as url:
        other = Client(Endpoints((url,), "k", "other-llm"), prompt, config(), QUICK)
        with pytest.raises(UserError, match="--served-model-name other-llm"):
            asyncio.run(other.check())
    gone = Client(Endpoints((url,), "k", MODEL), prompt, config(), QUICK)
    with pytest.raises(UserError, match="no server answers"):
        asyncio.run(gone.ask(["Rain"], "x", 0))


def test_equal_questions_are_asked_once_even_at_the_same_time(tmp_path: Path) -> None:
    asked: Counter[str] = Counter()

    async def ask(_tags: object, caption: str, _attempt: int) -> Answer:
        asked[caption] += 1
        await asyncio.sleep(0.01)
        return Answer(f"{caption}!", "stop")

    async def go() -> None:
        with AnswerCache(tmp_path / "c.sqlite") as cache:
            asker = CachedAsker(ask, cache, "w", load_prompt("few_shot"), config())
            answers = await asyncio.gather(*(asker(DOG, c, 0) for c in ["a", "a", "b", "a"]))
            assert [answer.text for answer in answers if answer] == ["a!", "a!", "b!", "a!"]

    asyncio.run(go())
    asyncio.run(go())
    assert asked == {"a": 1, "b": 1}


@pytest.fixture
def inputs(tmp_path: Path) -> Inputs:
    return write_inputs(tmp_path)


def _table_bytes(inputs: Inputs) -> dict[str, bytes]:
    paths = (inputs.root / "data/captions/demo").glob("*")
    return {path.name: path.read_bytes() for path in paths}


def test_stage_accounts_for_every_clip(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    inputs = write_inputs(tmp_path, clips=48)
    behaviour = Behaviour(fail_status={"heard 3 times": 400})
    with fake_llm_server(behaviour) as url:
        monkeypatch.setenv("FLAP_LLM_ENDPOINTS", f"{url}, {url}")
        stage.main(**inputs.arguments())
    captions = pd.read_parquet(inputs.root / "data/captions/demo")
    # Of 48 clips 9 are of test; 7, 17, 27, 37 and 47 have no TAGS row.
    assert len(captions) == 34
    assert "captions: 39 in = 34 out + 5 rejected" in capsys.readouterr().out
    assert set(_table_bytes(inputs)) == {f"shard-{i:05d}.parquet" for i in range(7)}
    failed = captions[captions["reason"] == "request_failed"]
    assert failed["clip_id"].tolist() == ["demo/0003"]
    assert not failed["kept"].any()
    assert (captions["kept"] == (captions["reason"] == "")).all()
    assert captions["kept"].sum() > 12
    assert (
        captions["enriched"]
        .iloc[0]
        .endswith("a rain is heard 0 times along with rain and church bell.")
    )


def test_a_rerun_asks_nothing_and_gives_the_same_bytes(
    inputs: Inputs, monkeypatch: pytest.MonkeyPatch
) -> None:
    behaviour = Behaviour()
    with fake_llm_server(behaviour) as url:
        monkeypatch.setenv("FLAP_LLM_ENDPOINTS", url)
        stage.main(**inputs.arguments())
    first, metrics = _table_bytes(inputs), (inputs.root / "metrics.json").read_text()
    monkeypatch.delenv("FLAP_LLM_ENDPOINTS")
    monkeypatch.setenv("FLAP_VLLM_PYTHON", "/nonexistent")
    stage.main(**inputs.arguments())  # no server is there: all answers are in the cache
    assert _table_bytes(inputs) == first
    assert (inputs.root / "metrics.json").read_text() == metrics
    assert set(behaviour.asked.values()) == {1}


def test_a_rejected_answer_is_asked_again_with_another_opening() -> None:
    answers = ["there is a dog barks", "", "A barking dog.", "never asked"]
    question, settings = Question("d/0", "A dog barks.", ("Dog",)), config()

    def rows(said: list[str], attempts: int) -> list[str]:
        left = iter(said)

        async def ask(*_: object) -> Answer:
            return Answer(next(left), "stop")

        origin = Origin("p", "m", "r", "{}")
        row = asyncio.run(enrich_one(question, ask, attempts, origin, settings))
        return [row["enriched"], row["reason"], *left]

    assert rows(answers, 3) == ["A barking dog.", "", "never asked"]
    assert rows(answers, 2)[:2] == ["there is a dog barks", "copy"], "the first if none is kept"


def test_many_requests_failing_is_an_error(inputs: Inputs, monkeypatch: pytest.MonkeyPatch) -> None:
    with fake_llm_server(Behaviour(fail_status={"situation": 400})) as url:
        monkeypatch.setenv("FLAP_LLM_ENDPOINTS", url)
        with pytest.raises(UserError, match="18 of 18 requests failed"):
            stage.main(**inputs.arguments())
        assert not (inputs.root / "data/captions/demo").exists()


def test_kill_and_rerun_gives_the_same_table_and_repeats_no_answer(tmp_path: Path) -> None:
    killed, whole = (
        write_inputs(tmp_path / name, clips=80, tries=1) for name in ("killed", "whole")
    )
    behaviour = Behaviour(delay_s=0.05)
    with fake_llm_server(behaviour) as url:
        environment = os.environ | {"FLAP_LLM_ENDPOINTS": url}

        def start(inputs: Inputs) -> subprocess.Popen[bytes]:
            command = [sys.executable, "-m", "pipeline.captions", *inputs.command_line()]
            return subprocess.Popen(command, env=environment, stderr=subprocess.DEVNULL)

        process = start(killed)
        while behaviour.asked.total() < 20:
            time.sleep(0.01)
            assert process.poll() is None
        process.send_signal(signal.SIGKILL)
        process.wait()
        cache = killed.root / "data/.cache/captions.sqlite"
        with closing(sqlite3.connect(cache)) as db:
            (known,) = db.execute("SELECT count(*) FROM answers").fetchone()
        assert 0 < known < 56
        before = behaviour.asked.total()
        assert start(killed).wait() == 0
        assert behaviour.asked.total() - before == 56 - known
        assert start(whole).wait() == 0
    assert _table_bytes(killed) == _table_bytes(whole)


def test_a_chat_prompt_needs_a_template(tmp_path: Path) -> None:
    inputs = write_inputs(tmp_path, prompt="paper_chat")
    with pytest.raises(UserError, match="has no chat template"):
        stage.main(**inputs.arguments())


def test_chat_form_asks_the_chat_endpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    inputs = write_inputs(tmp_path, prompt="paper_vicuna")
    with fake_llm_server(Behaviour()) as url:
        monkeypatch.setenv("FLAP_LLM_ENDPOINTS", url)
        stage.main(**inputs.arguments())
    captions = pd.read_parquet(inputs.root / "data/captions/demo")
    assert (
        captions["enriched"].iloc[0] == "a rain is heard 0 times along with rain and church bell."
    )
    assert captions["prompt_id"].iloc[0].startswith("paper_vicuna-")
