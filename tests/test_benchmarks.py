"""Every benchmark runs and ends with the keys that it promises; speed is not tested."""

import json

import pytest

from benchmarks import encoder, interleaved


def test_ratio_is_the_median_over_rounds() -> None:
    taken = {"ours": [1.0, 9.0, 1.0], "theirs": [2.0, 1.0, 2.0]}
    assert interleaved.ratio(taken, "ours", "theirs") == 0.5


def test_alternatives_take_turns() -> None:
    calls: list[str] = []
    alternatives = {name: lambda name=name: calls.append(name) for name in "ab"}
    taken = interleaved.interleaved(alternatives, 0, least_rounds=2)
    rounds = [sorted(calls[i : i + 2]) for i in range(0, len(calls), 2)]
    assert rounds == [["a", "b"]] * 3 and len(taken["a"]) == 2


@pytest.mark.slow
def test_encoder(capsys: pytest.CaptureFixture[str]) -> None:
    encoder.main(depth=1, batch=1, seconds=0)
    last = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert last["benchmark"] == "encoder"
    assert set(last["ratios"]) == {"masked", "vs_ast", "vs_eager"}
    assert 0 < last["ratios"]["masked"] < 1
