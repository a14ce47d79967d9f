"""TensorBoard, MLflow and Weights & Biases behind one interface, `Tracker`.

A run that resumes after a kill repeats some steps, but stays one run in each tracker. TensorBoard
hides the first copy of a repeated step. MLflow and W&B skip steps that they have already; W&B
knows those only online.
"""

import json
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import pandas as pd

PROJECT = "flap"  # MLflow's experiment and W&B's project, unless their own variables name others


@dataclass(frozen=True)
class RunInfo:
    """Description of a run for its trackers."""

    name: str  # letters and digits; the same after a resume
    folder: Path  # for the trackers' files
    parameters: dict[str, Any]  # by section


class Tracker(Protocol):
    """Logs the steps of a run. The constructor takes the run and its first step to log."""

    def add(self, step: int, values: dict[str, float]) -> None: ...

    def close(self, *, finished: bool) -> None: ...


class TensorBoard:
    def __init__(self, run: RunInfo, first_step: int) -> None:
        from torch.utils.tensorboard import SummaryWriter

        folder = run.folder / "tensorboard" / run.name
        self._writer = SummaryWriter(str(folder), purge_step=first_step)
        if first_step == 1:
            parameters = json.dumps(run.parameters, indent=2)
            self._writer.add_text("parameters", f"```\n{parameters}\n```", first_step)

    def add(self, step: int, values: dict[str, float]) -> None:
        for name, value in values.items():
            self._writer.add_scalar(name, value, step)

    def close(self, *, finished: bool) -> None:
        self._writer.close()


class Mlflow:
    def __init__(self, run: RunInfo, first_step: int) -> None:
        from mlflow import MlflowClient
        from mlflow.entities import Param

        store = f"sqlite:///{run.folder.resolve() / 'mlflow.db'}"
        self._client = client = MlflowClient(os.environ.get("MLFLOW_TRACKING_URI") or store)
        name = os.environ.get("MLFLOW_EXPERIMENT_NAME") or PROJECT
        known = client.get_experiment_by_name(name)
        experiment = known.experiment_id if known else client.create_experiment(name)
        found = client.search_runs([experiment], f"attributes.run_name = '{run.name}'")
        mlflow_run = found[0] if found else client.create_run(experiment, run_name=run.name)
        self._run_id = mlflow_run.info.run_id
        self._last_step = mlflow_run.data.metrics.get("step", 0)
        client.update_run(self._run_id, status="RUNNING")
        flat = pd.json_normalize(run.parameters).to_dict("records")[0]
        parameters = [Param(str(name), str(value)) for name, value in flat.items()]
        client.log_batch(self._run_id, params=parameters)

    def add(self, step: int, values: dict[str, float]) -> None:
        from mlflow.entities import Metric

        if step > self._last_step:
            now = int(time.time() * 1000)
            metrics = [Metric(name, value, now, step) for name, value in values.items()]
            self._client.log_batch(self._run_id, metrics=metrics)

    def close(self, *, finished: bool) -> None:
        self._client.set_terminated(self._run_id, "FINISHED" if finished else "KILLED")


class Wandb:
    def __init__(self, run: RunInfo, first_step: int) -> None:
        import wandb

        self._run = wandb.init(
            project=os.environ.get("WANDB_PROJECT") or PROJECT,
            id=run.name,
            resume="allow",
            dir=run.folder,
            config=run.parameters,
            settings=wandb.Settings(login_timeout=30),  # do not wait forever for an API key
        )

    def add(self, step: int, values: dict[str, float]) -> None:
        if step >= self._run.step:
            self._run.log(values, step=step, commit=True)

    def close(self, *, finished: bool) -> None:
        self._run.finish(exit_code=0 if finished else 1)


# By package. The extras of pyproject.toml have the same names.
TRACKERS: dict[str, Callable[[RunInfo, int], Tracker]] = {
    "tensorboard": TensorBoard,
    "mlflow": Mlflow,
    "wandb": Wandb,
}
