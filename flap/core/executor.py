"""One function over many items, on this machine's cores or on a cluster.

The environment says where the work runs. The results are the same:

| FLAP_EXECUTOR | where | settings |
|---|---|---|
| processes (default) | processes here, by joblib | FLAP_JOBS: how many; default one a core |
| ray | a Ray cluster | RAY_ADDRESS; without it, one is started here |
| dask | a Dask cluster | DASK_SCHEDULER_ADDRESS; without it, one is started here |

The machines of the cluster need the project's folder, with its `.venv`, under the same path on a
shared file system.
"""

import os
import pickle
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar

import joblib
from joblib.externals.loky.process_executor import BrokenProcessPool

from flap.core.errors import UserError, first_line, missing_extra

Item = TypeVar("Item")
Outcome = tuple[Item, Exception | None]
_WORKER_DEATHS = 2  # retries by Ray and Dask of an item whose worker died


def run_each(
    function: Callable[[Item], None], items: Sequence[Item], max_jobs: int | None = None
) -> Iterator[Outcome[Item]]:
    """Call `function(item)` for each item, and yield the items in the order they end.

    An exception is the outcome of its item; other items go on. If a local worker process is
    killed, the items in progress have that as their outcome.

    Args:
        max_jobs: number of items at a time; 1 on this machine means in this process.

    Raises:
        UserError: FLAP_EXECUTOR or FLAP_JOBS makes no sense, or the engine is not installed.
    """
    chosen = os.environ.get("FLAP_EXECUTOR") or "processes"
    engines = {"processes": _on_processes, "ray": _on_ray, "dask": _on_dask}
    if chosen not in engines:
        raise UserError(f"FLAP_EXECUTOR={chosen}: expected one of {', '.join(engines)}")
    if items:
        yield from engines[chosen](function, items, max_jobs)


def _attempt(project: str, function: Callable[[Item], None], item: Item) -> Exception | None:
    """Call the function in a worker, with the project's root as the working directory."""
    os.chdir(project)
    try:
        function(item)
    except Exception as error:
        return _portable(error)
    return None


def _portable(error: Exception) -> Exception:
    """The error, or a RuntimeError with its message if it cannot be pickled."""
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:
        return RuntimeError(f"{type(error).__name__}: {first_line(error)}")
    return error


def _on_processes(
    function: Callable[[Item], None], items: Sequence[Item], max_jobs: int | None
) -> Iterator[Outcome[Item]]:
    wanted = os.environ.get("FLAP_JOBS") or str(joblib.cpu_count())
    if not wanted.isdigit() or wanted == "0":
        raise UserError(f"FLAP_JOBS={wanted}: expected a number of processes")
    jobs = min(int(wanted), max_jobs or int(wanted), len(items))
    attempt = partial(_numbered_attempt, _project(), function)
    left = set(range(len(items)))

    def calls(out: set[int]) -> Iterator[Any]:
        for number in sorted(left):
            out.add(number)
            yield joblib.delayed(attempt)(number, items[number])

    while left:
        out = set[int]()
        # A killed pool can still deliver late results, so each round has a new Parallel.
        run = joblib.Parallel(
            n_jobs=jobs, return_as="generator_unordered", pre_dispatch="n_jobs", batch_size=1
        )
        try:
            for number, error in run(calls(out)):
                left.remove(number)
                out.remove(number)
                yield items[number], error
        except BrokenProcessPool as error:
            left -= out
            yield from ((items[number], error) for number in sorted(out))


def _numbered_attempt(
    project: str, function: Callable[[Item], None], number: int, item: Item
) -> tuple[int, Exception | None]:
    return number, _attempt(project, function, item)


def _project() -> str:
    return str(Path.cwd())


def _on_ray(
    function: Callable[[Item], None], items: Sequence[Item], max_jobs: int | None
) -> Iterator[Outcome[Item]]:
    address = ray_address()
    ray = _engine("ray", "ray")
    with ray.init(address, include_dashboard=False, log_to_driver=False):
        attempt = partial(ray.remote(max_retries=_WORKER_DEATHS)(_attempt).remote, _project())
        waiting = iter(items)
        running = {attempt(function, item): item for item in islice(waiting, max_jobs)}
        while running:
            (ended,), _others = ray.wait(list(running), num_returns=1)
            yield running.pop(ended), _result(partial(ray.get, ended))
            running |= {attempt(function, item): item for item in islice(waiting, 1)}


def ray_address() -> str:
    """RAY_ADDRESS, or "local" to start a cluster here. Call it before Ray is imported."""
    address = os.environ.get("RAY_ADDRESS")
    if not address:
        # Ray reads this at import. No other setting makes Ray listen at 127.0.0.1 alone.
        os.environ["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "0"
    return address or "local"


def _on_dask(
    function: Callable[[Item], None], items: Sequence[Item], max_jobs: int | None
) -> Iterator[Outcome[Item]]:
    distributed = _engine("distributed", "dask")
    address = os.environ.get("DASK_SCHEDULER_ADDRESS")
    here = {"threads_per_worker": 1, "dashboard_address": None}  # it listens on 127.0.0.1
    with distributed.Client(address, **({} if address else here)) as client:
        attempt = partial(client.submit, pure=False, retries=_WORKER_DEATHS)
        call = partial(_attempt, _project(), function)
        waiting = iter(items)
        running = {attempt(call, item): item for item in islice(waiting, max_jobs)}
        ending = distributed.as_completed(running)
        for ended in ending:
            yield running.pop(ended), _result(ended.result)
            ended.release()
            for item in islice(waiting, 1):
                task = attempt(call, item)
                running[task] = item
                ending.add(task)


def _result(get: Callable[[], Exception | None]) -> Exception | None:
    """The outcome of a remote call, or the error of the engine."""
    try:
        return get()
    except Exception as error:
        return error


def _engine(module: str, extra: str) -> Any:
    try:
        return __import__(module)
    except ImportError:
        raise missing_extra(f"FLAP_EXECUTOR={extra}", module, extra) from None
