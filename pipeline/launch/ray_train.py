"""Ray Train, with output and errors for people.

Ray places the ranks on its cluster, watches them, and begins all again when one has died. Our
own checkpoints, in the folder that all machines share, say where they go on. A rank that ends
with a message to the user would end so again: the run is over, and the message is shown once.
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

_WAIT_SECONDS = 600  # for room on the cluster, over the whole run
_POLL_SECONDS = 0.2
_AGAIN = "run again to go on from the last checkpoint"


class _Backend(Backend):
    """No process group, which is the rank's own affair; GPUs are counted by LOCAL_RANK."""

    share_cuda_visible_devices = True


class _BackendConfig(BackendConfig):
    @property
    def backend_cls(self) -> type[Backend]:
        return _Backend


class _Deaths(UserCallback):
    """Tells of Ray workers that are gone; others have told of their ranks themselves."""

    def __init__(self, queue: Queue) -> None:
        self._queue = queue

    def after_exception(self, run_context: Any, worker_exceptions: dict[int, Exception]) -> None:
        for rank, error in worker_exceptions.items():
            if not isinstance(error, RankFailed):
                self._queue.put(f"rank {rank} failed: {error}")


def run(stage: Stage, address: str, ranks: int | None, restarts: int) -> None:
    """Run a stage's ranks on a cluster.

    Args:
        address: the cluster's; `local` for one that is started here.
        ranks: how many; None for one a GPU of the cluster, or one.
        restarts: how often all begin again after one died.

    Raises:
        UserError: a rank's own message, or why the ranks could not go on.
    """
    with TemporaryDirectory(prefix="flap-") as folder, _cluster(address, ranks):
        exit_on_sigterm()  # Ray's own handler aborts us and leaves Ray's processes behind
        gpus = int(ray.cluster_resources().get("GPU", 0))
        here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
        queue = Queue(actor_options={"num_cpus": 0, "scheduling_strategy": here})
        failures = FailureConfig(max_failures=restarts, controller_failure_limit=restarts)
        # Its annotations are of the first Ray Train, whose classes have fewer fields.
        configs: dict[str, Any] = {
            "scaling_config": ScalingConfig(num_workers=ranks or gpus or 1, use_gpu=gpus > 0),
            # The folder is for checkpoints of Ray's, of which there are none.
            "run_config": RunConfig(
                storage_path=folder, failure_config=failures, callbacks=[_Deaths(queue)]
            ),
        }
        told = {"stage": stage, "queue": queue}
        trainer = DataParallelTrainer(
            run_rank, train_loop_config=told, backend_config=_BackendConfig(), **configs
        )
        # In a process of its own, for in ours Ray would have Ctrl-C end in success.
        fit = ray.remote(_fit).options(num_cpus=0, max_retries=0, scheduling_strategy=here)
        training = fit.remote(trainer, _WAIT_SECONDS // (restarts + 1))
        try:
            _follow(training, queue)
        except RayTaskError:
            raise
        except RayError as error:
            raise UserError(f"Ray lost the run: {first_line(error)}; {_AGAIN}") from None


def _cluster(address: str, ranks: int | None) -> Any:
    """A context manager: we are connected, and with its end everything of ours ends there."""
    init = partial(ray.init, include_dashboard=False, log_to_driver=False)
    if address == "local":
        return init(address, num_cpus=ranks or 1)
    try:
        return init(address)
    except (ConnectionError, RuntimeError, ValueError) as error:
        raise UserError(f"RAY_ADDRESS={address}: {first_line(error)}") from None


def _fit(trainer: DataParallelTrainer, room_seconds: int) -> str | None:
    """Train to the end; or why the run could not go on.

    Args:
        room_seconds: how long one try may wait for room on the cluster.
    """
    os.environ["RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S"] = str(room_seconds)
    try:
        trainer.fit()
    except ControllerError as error:
        return f"Ray could not start the ranks: {first_line(error.controller_failure)}"
    except TrainingFailedError:
        many = "the ranks failed once more than FLAP_MAX_RESTARTS allows"
        return f"{many}; their output says why; {_AGAIN}"
    return None


def _follow(training: Any, queue: Queue) -> None:
    """Show what the ranks tell, until the run is over."""
    is_over = False
    while not is_over:
        is_over = bool(ray.wait([training], timeout=_POLL_SECONDS)[0])
        for told in queue.get_nowait_batch(queue.qsize()):
            if isinstance(told, UserError):
                raise told
            output = told if isinstance(told, bytes) else f"\n{told}\n".encode()
            sys.stdout.buffer.write(output)
            sys.stdout.flush()
    if problem := ray.get(training):
        raise UserError(problem)
