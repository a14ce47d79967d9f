"""Ray Train, with the output of the ranks and readable errors.

Ray places the ranks on its cluster, watches them, and restarts all ranks if one dies. The ranks
resume from FLAP's checkpoints in the project's folder, which all machines share. If a rank ends
with a `UserError`, a restart would end with the same error. The run therefore stops, and the
message is shown once.
"""

import os
import sys
from functools import partial
from tempfile import TemporaryDirectory
from typing import Any

import ray
from ray.exceptions import RayError, RayTaskError
from ray.train.backend import Backend, BackendConfig
from ray.train.v2.api.callback import UserCallback
from ray.train.v2.api.config import FailureConfig, RunConfig, ScalingConfig
from ray.train.v2.api.data_parallel_trainer import DataParallelTrainer
from ray.train.v2.api.exceptions import ControllerError, TrainingFailedError
from ray.util.queue import Queue
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from flap.core.errors import UserError, first_line
from flap.core.processes import exit_on_sigterm
from pipeline.launch.ray_rank import RankFailed, Stage, run_rank

_WAIT_SECONDS = 600  # for free resources on the cluster, over all restarts
_POLL_SECONDS = 0.2
_AGAIN = "run again to go on from the last checkpoint"


class _Backend(Backend):
    """Starts no process group, because each rank does. A rank selects its GPU by LOCAL_RANK."""

    share_cuda_visible_devices = True


class _BackendConfig(BackendConfig):
    @property
    def backend_cls(self) -> type[Backend]:
        return _Backend


class _LostWorkers(UserCallback):
    """Reports Ray workers that died. A live worker reports the failure of its rank itself."""

    def __init__(self, queue: Queue) -> None:
        self._queue = queue

    def after_exception(self, run_context: Any, worker_exceptions: dict[int, Exception]) -> None:
        for rank, error in worker_exceptions.items():
            if not isinstance(error, RankFailed):
                self._queue.put(f"rank {rank} failed: {error}")


def run(stage: Stage, address: str, ranks: int | None, restarts: int) -> None:
    """Run a stage's ranks on a cluster.

    Args:
        address: address of the cluster; `local` starts a cluster on this machine.
        ranks: number of ranks; None: one for each GPU of the cluster, or one.
        restarts: how often all ranks restart after one died.

    Raises:
        UserError: a rank's message, or the reason why the ranks could not continue.
    """
    with TemporaryDirectory(prefix="flap-") as folder, _cluster(address, ranks):
        exit_on_sigterm()  # Ray's own handler aborts this process and leaves Ray's processes behind
        gpus = int(ray.cluster_resources().get("GPU", 0))
        here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
        queue = Queue(actor_options={"num_cpus": 0, "scheduling_strategy": here})
        failures = FailureConfig(max_failures=restarts, controller_failure_limit=restarts)
        # Any, because the annotations of the trainer name the classes of Ray Train v1, which have
        # fewer fields.
        configs: dict[str, Any] = {
            "scaling_config": ScalingConfig(num_workers=ranks or gpus or 1, use_gpu=gpus > 0),
            # Ray's checkpoints would go to this folder; FLAP writes none of them.
            "run_config": RunConfig(
                storage_path=folder, failure_config=failures, callbacks=[_LostWorkers(queue)]
            ),
        }
        rank_config = {"stage": stage, "queue": queue}
        trainer = DataParallelTrainer(
            run_rank, train_loop_config=rank_config, backend_config=_BackendConfig(), **configs
        )
        # A separate process: in this one, Ray would turn Ctrl-C into a success.
        fit = ray.remote(_fit).options(num_cpus=0, max_retries=0, scheduling_strategy=here)
        training = fit.remote(trainer, _WAIT_SECONDS // (restarts + 1))
        try:
            _follow(training, queue)
        except RayTaskError:
            raise
        except RayError as error:
            raise UserError(f"Ray lost the run: {first_line(error)}; {_AGAIN}") from None


def _cluster(address: str, ranks: int | None) -> Any:
    """A context manager that connects to the cluster; its end also ends what we started there."""
    init = partial(ray.init, include_dashboard=False, log_to_driver=False)
    if address == "local":
        return init(address, num_cpus=ranks or 1)
    try:
        return init(address)
    except (ConnectionError, RuntimeError, ValueError) as error:
        raise UserError(f"RAY_ADDRESS={address}: {first_line(error)}") from None


def _fit(trainer: DataParallelTrainer, resource_seconds: int) -> str | None:
    """Train to the end; returns the reason if the run could not continue.

    Args:
        resource_seconds: how long one start may wait for free resources on the cluster.
    """
    os.environ["RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S"] = str(resource_seconds)
    try:
        trainer.fit()
    except ControllerError as error:
        return f"Ray could not start the ranks: {first_line(error.controller_failure)}"
    except TrainingFailedError:
        many = "the ranks failed once more than FLAP_MAX_RESTARTS allows"
        return f"{many}; their output says why; {_AGAIN}"
    return None


def _follow(training: Any, queue: Queue) -> None:
    """Print the messages of the ranks until the run ends."""
    has_ended = False
    while not has_ended:
        has_ended = bool(ray.wait([training], timeout=_POLL_SECONDS)[0])
        for message in queue.get_nowait_batch(queue.qsize()):
            if isinstance(message, UserError):
                raise message
            output = message if isinstance(message, bytes) else f"\n{message}\n".encode()
            sys.stdout.buffer.write(output)
            sys.stdout.flush()
    if problem := ray.get(training):
        raise UserError(problem)
