"""One function over many items, on this machine's cores or on a cluster.

Where the work runs is the environment's affair and changes no result:

| FLAP_EXECUTOR | where | settings |
|---|---|---|
| processes (default) | processes here, by joblib | FLAP_JOBS: how many; default one a core |
| ray | a Ray cluster | RAY_ADDRESS; without it, one is started here |
| dask | a Dask cluster | DASK_SCHEDULER_ADDRESS; without it, one is started here |

The cluster's machines need the project's folder under the same path, on a shared file system,
and its `.venv`.
"""

import os
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any, TypeVar

import joblib
from joblib.externals.loky.process_executor import BrokenProcessPool

from flap.errors import UserError

Item = TypeVar("Item")
Outcome = tuple[Item, Exception | None]
_WORKER_DEATHS = 2  # tries that Ray and Dask grant an item whose worker died


def run_each(
    function: Callable[[Item], None], items: Sequence[Item], max_jobs: int | None = None
) -> Iterator[Outcome[Item]]:
    """Call `function(item)` for each item, and yield the items in the order they end.

    An exception is that item's outcome, and the others go on. If a process on this machine is
    killed, every item that had not ended has that as its outcome.

    Args:
        max_jobs: the most processes on this machine at a time; one means in this process.

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
    """What a worker runs; paths are from the project's root, wherever the worker started."""
    os.chdir(project)
    try:
        function(item)
    except Exception as error:
        return error
    return None


def _on_processes(
    function: Callable[[Item], None], items: Sequence[Item], max_jobs: int | None
) -> Iterator[Outcome[Item]]:
    wanted = os.environ.get("FLAP_JOBS") or str(joblib.cpu_count())
    if not wanted.isdigit() or wanted == "0":
        raise UserError(f"FLAP_JOBS={wanted}: expected a number of processes")
    jobs = min(int(wanted), max_jobs or int(wanted), len(items))
    left = set(range(len(items)))
    run = joblib.Parallel(n_jobs=jobs, return_as="generator_unordered")
    attempt = partial(_numbered_attempt, _project(), function)
    calls = (joblib.delayed(attempt)(i, item) for i, item in enumerate(items))
    try:
        for number, error in run(calls):
            left.remove(number)
            yield items[number], error
    except BrokenProcessPool as error:
        yield from ((items[number], error) for number in sorted(left))


def _numbered_attempt(
    project: str, function: Callable[[Item], None], number: int, item: Item
) -> tuple[int, Exception | None]:
    return number, _attempt(project, function, item)


def _project() -> str:
    return os.getcwd()  # noqa: PTH109


def _on_ray(
    function: Callable[[Item], None], items: Sequence[Item], _: int | None
) -> Iterator[Outcome[Item]]:
    ray = _engine("ray", "ray")
    here = {} if os.environ.get("RAY_ADDRESS") else {"_node_ip_address": "127.0.0.1"}
    with ray.init(include_dashboard=False, log_to_driver=False, **here):
        remote = ray.remote(max_retries=_WORKER_DEATHS)(_attempt)
        running = {remote.remote(_project(), function, item): item for item in items}
        while running:
            (ended,), _others = ray.wait(list(running), num_returns=1)
            yield running.pop(ended), _result(partial(ray.get, ended))


def _on_dask(
    function: Callable[[Item], None], items: Sequence[Item], _: int | None
) -> Iterator[Outcome[Item]]:
    distributed = _engine("distributed", "dask")
    address = os.environ.get("DASK_SCHEDULER_ADDRESS")
    here = {"threads_per_worker": 1, "dashboard_address": None}  # it listens on 127.0.0.1
    with distributed.Client(address, **({} if address else here)) as client:
        attempt = partial(_attempt, _project(), function)
        tasks = client.map(attempt, items, pure=False, retries=_WORKER_DEATHS)
        item_of = dict(zip(tasks, items, strict=True))
        for ended in distributed.as_completed(tasks):
            yield item_of.pop(ended), _result(ended.result)
            ended.release()


def _result(get: Callable[[], Exception | None]) -> Exception | None:
    """What came back, or how the engine failed to bring it."""
    try:
        return get()
    except Exception as error:
        return error


def _engine(module: str, extra: str) -> Any:
    try:
        return __import__(module)
    except ImportError:
        raise UserError(
            f"FLAP_EXECUTOR={extra}: {module} is not installed; "
            f"uv pip install -c requirements/main.txt -e '.[{extra}]'"
        ) from None
