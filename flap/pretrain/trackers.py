"""TensorBoard, MLflow and Weights & Biases, each as a `Tracker` of rows with a step.

A run that goes on after a kill is one run to them too: TensorBoard hides the steps that are told
again, the others are not told what they have already. W&B knows what it has only where it is
online.
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
class Run:
    """What trackers are told of a run before its first step."""

    name: str  # of letters and digits; the same when the run goes on
    folder: Path  # for the trackers' files
    parameters: dict[str, Any]  # by section


class Tracker(Protocol):
    """Made with a run and the first step that it will be told."""

    def add(self, step: int, values: dict[str, float]) -> None: ...

    def close(self, *, finished: bool) -> None: ...


class TensorBoard:
    def __init__(self, run: Run, first_step: int) -> None:
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
    def __init__(self, run: Run, first_step: int) -> None:
        from mlflow import MlflowClient
        from mlflow.entities import Param

        store = f"sqlite:///{run.folder.resolve() / 'mlflow.db'}"
        self._client = client = MlflowClient(os.environ.get("MLFLOW_TRACKING_URI") or store)
        name = os.environ.get("MLFLOW_EXPERIMENT_NAME") or PROJECT
        known = client.get_experiment_by_name(name)
        experiment = known.experiment_id if known else client.create_experiment(name)
        found = client.search_runs([experiment], f"attributes.run_name = '{run.name}'")
        ours = found[0] if found else client.create_run(experiment, run_name=run.name)
        self._run_id = ours.info.run_id
        self._last_step = ours.data.metrics.get("step", 0)
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
    def __init__(self, run: Run, first_step: int) -> None:
        import wandb

        self._run = wandb.init(
            project=os.environ.get("WANDB_PROJECT") or PROJECT,
            id=run.name,
            resume="allow",
            dir=run.folder,
            config=run.parameters,
            settings=wandb.Settings(login_timeout=30),  # nobody may be there to give a key
        )

    def add(self, step: int, values: dict[str, float]) -> None:
        if step >= self._run.step:
            self._run.log(values, step=step, commit=True)

    def close(self, *, finished: bool) -> None:
        self._run.finish(exit_code=0 if finished else 1)


TRACKERS: dict[str, Callable[[Run, int], Tracker]] = {  # by package, which also is the extra
    "tensorboard": TensorBoard,
    "mlflow": Mlflow,
    "wandb": Wandb,
}
