"""Where work runs: processes here, Ray, Dask; the same results on each."""

import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from flap.core.errors import UserError
from flap.core.executor import run_each


def acting(folder: Path) -> Callable[[str], None]:
    """A function pickled by value, because workers of a cluster cannot import this module."""

    def act(item: str) -> None:
        marker = folder / "died"
        if item == "bad":
            raise ValueError("bad item")
        if item == "die" and not marker.exists():  # the first time only
            marker.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        Path(f"{item}.out").touch()  # from the project's root, wherever the worker started

    return act


ITEMS = ["a", "b", "bad", "c"]


@pytest.mark.parametrize(
    "engine",
    [
        "processes",
        pytest.param("ray", marks=pytest.mark.engine),
        pytest.param("dask", marks=pytest.mark.engine),
    ],
)
def test_every_item_has_an_outcome(
    engine: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip({"processes": "joblib", "dask": "distributed"}.get(engine, engine))
    monkeypatch.setenv("FLAP_EXECUTOR", engine)
    monkeypatch.chdir(tmp_path)
    items = ITEMS if engine == "processes" else [*ITEMS, "die"]  # a cluster retries it
    outcomes = dict(run_each(acting(tmp_path), items))
    assert set(outcomes) == set(items)
    assert isinstance(outcomes.pop("bad"), ValueError)
    assert set(outcomes.values()) == {None}
    assert {path.stem for path in tmp_path.glob("*.out")} == set(outcomes)


def test_a_killed_process_is_the_outcome_of_the_items_in_progress(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FLAP_JOBS", "2")
    monkeypatch.chdir(tmp_path)
    outcomes = dict(run_each(acting(tmp_path), ["die", "a"]))
    assert set(outcomes) == {"die", "a"}
    assert "unexpectedly terminated" in str(outcomes["die"])


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("FLAP_EXECUTOR", "moon", "expected one of processes, ray, dask"),
        ("FLAP_JOBS", "many", "FLAP_JOBS=many: expected a number"),
        ("FLAP_JOBS", "0", "FLAP_JOBS=0: expected a number"),
    ],
)
def test_a_wrong_variable_is_named(
    name: str, value: str, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(UserError, match=message):
        list(run_each(print, ["x"]))


def test_a_missing_engine_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FLAP_EXECUTOR", "ray")
    monkeypatch.setitem(__import__("sys").modules, "ray", None)
    with pytest.raises(UserError, match=r"ray is not installed.*\[ray\]"):
        list(run_each(print, ["x"]))


def test_others_go_on_when_a_process_is_killed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FLAP_JOBS", "2")
    monkeypatch.chdir(tmp_path)
    items = ["die", *(f"{i}" for i in range(100))]
    outcomes = list(run_each(acting(tmp_path), items))
    assert sorted(item for item, _ in outcomes) == sorted(items)  # each once
    assert sum(error is not None for _, error in outcomes) < 50  # those at work, or just ended


def test_an_error_that_cannot_be_pickled_keeps_its_message(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class LocalError(Exception):
        def __init__(self, first: str, second: str) -> None:
            super().__init__(f"{first} and {second}")

    def fail(item: str) -> None:
        raise LocalError(item, "more")

    monkeypatch.setenv("FLAP_JOBS", "2")
    outcomes = dict(run_each(fail, ["a", "b"]))
    assert "LocalError: a and more" in str(outcomes["a"])


@pytest.mark.engine
@pytest.mark.parametrize("engine", ["ray", "dask"])
def test_max_jobs_limits_the_items_at_a_time(
    engine: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FLAP_EXECUTOR", engine)
    monkeypatch.chdir(tmp_path)

    def alone(_: str) -> None:
        Path("busy").touch(exist_ok=False)
        Path("busy").unlink()

    assert set(dict(run_each(alone, list("abcdef"), max_jobs=1)).values()) == {None}
