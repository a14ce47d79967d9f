"""Every benchmark runs and prints the documented keys; speed is not tested."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

import benchmarks.gpu
from benchmarks import (
    audio_stage,
    captions,
    encoder,
    fbank,
    interleaved,
    loader,
    mel_read,
    scoring,
    train_step,
)
from benchmarks.gpu import run as gpu


def test_ratio_is_the_median_over_rounds() -> None:
    taken = {"ours": [1.0, 9.0, 1.0], "theirs": [2.0, 1.0, 2.0]}
    assert interleaved.ratio(taken, "ours", "theirs") == 0.5


def test_alternatives_take_turns() -> None:
    calls: list[str] = []
    alternatives = {name: lambda name=name: calls.append(name) for name in "ab"}
    taken = interleaved.interleaved(alternatives, 0, min_rounds=2)
    rounds = [sorted(calls[i : i + 2]) for i in range(0, len(calls), 2)]
    assert rounds == [["a", "b"]] * 3 and len(taken["a"]) == 2


@pytest.mark.slow
def test_encoder(capsys: pytest.CaptureFixture[str]) -> None:
    encoder.main(depth=1, batch=1, seconds=0)
    last = last_line(capsys)
    assert last["benchmark"] == "encoder"
    assert set(last["ratios"]) == {"masked", "vs_ast", "vs_eager"}
    assert 0 < last["ratios"]["masked"] < 1


def last_line(capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    return json.loads(capsys.readouterr().out.splitlines()[-1])


def test_fbank(capsys: pytest.CaptureFixture[str]) -> None:
    fbank.main(clips=1, seconds=0)
    last = last_line(capsys)
    assert set(last["ratios"]) == {"speedup", "max_abs_diff"}
    assert 0 <= last["ratios"]["max_abs_diff"] <= 2e-3


def test_mel_read(capsys: pytest.CaptureFixture[str]) -> None:
    mel_read.main(clips=40, seconds=0)
    last = last_line(capsys)
    assert set(last["ratios"]) == {"vs_on_the_fly", "vs_memmap"}
    assert last["ratios"]["vs_on_the_fly"] > 1


@pytest.mark.slow
def test_captions(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("FLAP_LLM_ENDPOINTS", raising=False)
    captions.main(rows=40, seconds=0)
    assert set(last_line(capsys)["ratios"]) == {"vs_raw", "fake_rps"}


@pytest.mark.slow
def test_audio_stage(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FLAP_JOBS", "1")  # the benchmark sets it, too; monkeypatch restores it
    audio_stage.main(shards=2, seconds=0)
    assert set(last_line(capsys)["ratios"]) == {"speedup", "same_columns", "two_process"}


@pytest.mark.slow
def test_train_step(capsys: pytest.CaptureFixture[str]) -> None:
    train_step.main(width=64, depth=2, batch=2, seconds=0)
    assert set(last_line(capsys)["ratios"]) == {"masked", "vs_hf_clap"}


def test_loader(capsys: pytest.CaptureFixture[str]) -> None:
    loader.main(clips=64, width=64, depth=1, seconds=0)
    ratios = last_line(capsys)["ratios"]
    assert set(ratios) == {"vs_consumption", "data_wait"}
    assert 0 < ratios["data_wait"] < 1


def test_scoring(capsys: pytest.CaptureFixture[str]) -> None:
    scoring.main(clips=300, seconds=0, memory_clips=300)
    ratios = last_line(capsys)["ratios"]
    assert set(ratios) == {"speedup", "vs_sort_once", "extra_mb"}
    assert ratios["speedup"] > 1


@pytest.mark.slow
def test_gpu(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    gpu.main(out=tmp_path / "gpu.json", minutes=5, sections="", tiny=True)
    last = last_line(capsys)
    assert last == json.loads((tmp_path / "gpu.json").read_text())
    assert last["errors"] == {} and last["skipped"] == []
    documented = set(re.findall(r"\w+", str(benchmarks.gpu.__doc__)))
    assert set(last["ratios"]) <= documented and set(last["seconds"]) == set(gpu.SECTIONS)
    assert last["ratios"]["loss_error_fp32"] <= 1e-5 and last["ratios"]["ranking_same"] == 1


def test_gpu_goes_on_after_a_failure(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(_: Any) -> None:
        raise RuntimeError("no such kernel")

    sections = {"step": (fails, 0), "ranking": gpu.SECTIONS["ranking"], "fbank": (fails, 0)}
    monkeypatch.setattr(gpu, "SECTIONS", sections)
    gpu.main(out=None, minutes=5, sections="step,ranking", tiny=True)
    last = last_line(capsys)
    assert last["errors"] == {"step": "RuntimeError: no such kernel"}
    assert set(last["ratios"]) == {"ranking_gpu", "ranking_same"}


def test_gpu_leaves_out_what_time_does_not_allow(capsys: pytest.CaptureFixture[str]) -> None:
    gpu.main(out=None, minutes=0, sections="ranking", tiny=True)
    assert last_line(capsys)["skipped"] == ["ranking"]
