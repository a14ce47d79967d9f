"""Trackers of `pretrain` get each step once, and their failures do not stop training."""

import json
import struct
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from unittest.mock import Mock

import pandas as pd
import pytest
from conftest import Corpus
from mlflow import MlflowClient
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from test_pretrain import project
from test_pretrain import train as train_stage
from wandb.proto.wandb_internal_pb2 import Record

from flap.core.errors import UserError
from flap.pretrain.history import History
from flap.pretrain.trackers import RunInfo
from flap.pretrain.tracking import TrackerGroup, trackers_from_environment

PARAMETERS = {"pretrain": {"batch": 8, "mask": {"kind": "2d"}}, "encoder": {"width": 32}}


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("MLFLOW_TRACKING_URI", "MLFLOW_EXPERIMENT_NAME", "WANDB_PROJECT"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("WANDB_MODE", "offline")


def train(names: list[str], folder: Path, steps: range, *, killed: bool = False) -> None:
    """Log the history of a run that resumes before `steps`."""
    run = RunInfo("1f2e3d", folder / "tracking", PARAMETERS)
    with suppress(KeyboardInterrupt), TrackerGroup(names, run) as tracking:
        history = History.resume(folder / "history.csv", steps.start - 1, tracking.add)
        for step in steps:
            recall = 0.5 if step % 2 == 0 else None
            history.add(step=step, loss=1 / step, val_recall_at_10=recall)
            if step % 2 == 0:
                history.flush()
        if killed:
            raise KeyboardInterrupt


def scalars(folder: Path, name: str) -> dict[int, float]:
    (run,) = (folder / "tensorboard").iterdir()
    events = EventAccumulator(str(run)).Reload().Scalars(name)
    assert len({event.step for event in events}) == len(events)
    return {event.step: event.value for event in events}


LOSSES = pytest.approx({step: 1 / step for step in range(1, 8)}, rel=1e-5)


def test_tensorboard_replaces_the_steps_of_a_killed_run(tmp_path: Path) -> None:
    train(["tensorboard"], tmp_path, range(1, 6), killed=True)
    train(["tensorboard"], tmp_path, range(5, 8))
    assert scalars(tmp_path / "tracking", "loss") == LOSSES
    assert scalars(tmp_path / "tracking", "val_recall_at_10") == {2: 0.5, 4: 0.5, 6: 0.5}
    events = EventAccumulator(str(tmp_path / "tracking/tensorboard/1f2e3d")).Reload()
    (text,) = events.Tensors("parameters/text_summary")
    assert json.loads(text.tensor_proto.string_val[0].strip(b"`\n")) == PARAMETERS


def test_mlflow_goes_on_in_the_same_run(tmp_path: Path) -> None:
    client = MlflowClient(f"sqlite:///{tmp_path / 'tracking/mlflow.db'}")
    for steps, status in ((range(1, 6), "KILLED"), (range(5, 8), "FINISHED")):
        train(["mlflow"], tmp_path, steps, killed=status == "KILLED")
        experiment = client.get_experiment_by_name("flap")
        assert experiment is not None
        (run,) = client.search_runs([experiment.experiment_id])
        assert run.info.status == status
    losses = client.get_metric_history(run.info.run_id, "loss")
    assert [metric.step for metric in losses] == list(range(1, 8))
    assert {metric.step: metric.value for metric in losses} == LOSSES
    assert run.data.params == {
        "pretrain.batch": "8",
        "pretrain.mask.kind": "2d",
        "encoder.width": "32",
    }


def wandb_records(path: Path) -> Iterator[Record]:
    """Records of an offline file: after a header, a LevelDB log within one block."""
    data = path.read_bytes()
    assert len(data) <= 32768
    at = 7
    while at < len(data):
        _, length, kind = struct.unpack_from("<IHB", data, at)
        assert kind == 1  # a record in one piece
        yield Record.FromString(data[at + 7 : at + 7 + length])
        at += 7 + length


def test_wandb_keeps_rows_and_parameters_offline(tmp_path: Path) -> None:
    train(["wandb"], tmp_path, range(1, 8))
    (path,) = tmp_path.glob("tracking/wandb/offline-run-*-1f2e3d/*.wandb")
    records = list(wandb_records(path))
    rows = [
        {item.key or item.nested_key[0]: item.value_json for item in record.history.item}
        for record in records
        if record.HasField("history")
    ]
    assert {int(row["_step"]): float(row["loss"]) for row in rows} == LOSSES
    (run,) = (record.run for record in records if record.HasField("run"))
    config = {item.key: json.loads(item.value_json) for item in run.config.update}
    assert run.project == "flap" and config.items() >= PARAMETERS.items()


def test_wandb_skips_the_steps_that_its_server_has(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    resumed = Mock(step=6)  # the first step that the server lacks
    init = Mock(return_value=resumed)
    monkeypatch.setattr("wandb.init", init)
    train(["wandb"], tmp_path, range(5, 8))
    assert init.call_args.kwargs.items() >= {"id": "1f2e3d", "resume": "allow"}.items()
    assert [call.kwargs["step"] for call in resumed.log.call_args_list] == [6, 7]
    resumed.finish.assert_called_once_with(exit_code=0)


def test_a_server_that_is_gone_costs_one_warning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:1")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    train(["mlflow", "tensorboard"], tmp_path, range(1, 8))
    assert scalars(tmp_path / "tracking", "loss") == LOSSES
    assert len(pd.read_csv(tmp_path / "history.csv")) == 6
    assert capfd.readouterr().out.count("pretrain: mlflow failed") == 1


def test_the_environment_names_trackers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("FLAP_TRACKERS", raising=False)
    assert trackers_from_environment() == []
    monkeypatch.setenv("FLAP_TRACKERS", "tensorboard, wandb")
    assert trackers_from_environment() == ["tensorboard", "wandb"]
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(UserError, match=r"FLAP_TRACKERS=.*wandb is not installed.*\.\[wandb\]"):
        trackers_from_environment()
    monkeypatch.setenv("FLAP_TRACKERS", "tensorboard,comet")
    with pytest.raises(UserError, match=r"FLAP_TRACKERS=.*expected some of tensorboard, mlflow"):
        trackers_from_environment()


def test_the_stage_logs_its_history(corpus: Corpus) -> None:
    folder = project(corpus, epochs=1, dropout=0.0)
    _, history = train_stage(folder, environment={"FLAP_TRACKERS": "tensorboard"})
    logged = scalars(corpus.data / ".tracking", "loss")
    assert logged == pytest.approx(dict(zip(history["step"], history["loss"], strict=True)))
