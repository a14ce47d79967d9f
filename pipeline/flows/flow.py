"""The Prefect flow `flap`: the stages of dvc.yaml, one task each.

DVC decides what runs, from the graph it reads itself; Prefect decides when, and reports.

1. `read_graph` asks DVC for the stages and what each depends on.
2. Each stage becomes a task that runs `dvc repro --single-item <stage>` and sends its output
   to the run's log, line by line.
3. The scores that `dvc metrics` knows become the artifact `scores`.

`python -m pipeline.flows.flow` runs it here and now: on the server of `make serve` if that is up,
else on a temporary one.
"""

import os
import sys
from collections import deque
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer
from prefect import flow, get_run_logger, task
from prefect.artifacts import create_markdown_artifact
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import State
from prefect.futures import PrefectFuture, wait
from prefect.settings import (
    PREFECT_API_URL,
    PREFECT_SERVER_ALLOW_EPHEMERAL_MODE,
    temporary_settings,
)
from prefect.task_runners import ThreadPoolTaskRunner

from flap.core.errors import UserError
from flap.core.processes import Children
from pipeline.flows.dvc_graph import Graph, read_graph, read_scores
from pipeline.flows.serve import is_ours
from pipeline.stage import run

TAIL_LINES = 20
DVC_ERROR, DVC_BUSY = 255, ("' is busy, it is being blocked by", "Unable to acquire lock")
BUSY_RETRIES, BUSY_SECONDS = 6, 10.0
DVC_ENV = {
    "DVC_NO_ANALYTICS": "1",
    "PYTHONUNBUFFERED": "1",  # lines reach the log when they are printed
    "TQDM_MININTERVAL": "10",  # a progress bar is a log line here
}


class StageFailed(Exception):
    """A stage ended with an error; the message holds its last lines."""


class WorkspaceBusy(StageFailed):
    """Another DVC process holds what the stage reads or writes."""


def _is_busy(task: Any, task_run: Any, state: State[Any]) -> bool:
    return isinstance(state.result(raise_on_failure=False), WorkspaceBusy)


@flow(name="flap", log_prints=False)
def flap(targets: list[str] | None = None, force: bool = False, parallel: int = 1) -> None:
    """Run every stage that is not up to date.

    Args:
        targets: Stages or outputs to bring up to date with what they need; default: all.
        force: Run the stages even if nothing changed.
        parallel: Stages that may run at the same time.
    """
    graph = read_graph(targets)
    get_run_logger().info("stages in order: %s", ", ".join(graph.dependencies))
    failed = _run_stages(graph, force, parallel)
    if failed:
        raise StageFailed("; ".join(failed))
    _publish_scores(graph)


def _run_stages(graph: Graph, force: bool, parallel: int) -> list[str]:
    """Run all stages; what went wrong, a phrase a stage."""
    children = Children()
    # In the graph's order, so that a waiting task never holds the thread of one it waits for.
    pool: ThreadPoolTaskRunner[Any] = ThreadPoolTaskRunner(max_workers=parallel)
    with pool as runner:
        futures: dict[str, PrefectFuture[Any]] = {}
        try:
            for address, needs in graph.dependencies.items():
                futures[address] = runner.submit(
                    run_stage,
                    {"address": address, "force": force, "children": children},
                    wait_for=[futures[need] for need in needs],
                )
            wait(list(futures.values()))
        except BaseException:  # cancelled or interrupted: the tasks' threads cannot know
            children.end()
            raise
    states = {address: future.state for address, future in futures.items()}
    failed = [address for address, state in states.items() if state.is_failed()]
    skipped = [address for address, state in states.items() if state.is_pending()]
    phrases = [f"{address} failed" for address in failed]
    return phrases + ([f"not run: {', '.join(skipped)}"] if skipped else [])


@task(
    task_run_name="{address}",
    cache_policy=NO_CACHE,
    retries=BUSY_RETRIES,
    retry_delay_seconds=BUSY_SECONDS,
    retry_condition_fn=_is_busy,
)
def run_stage(address: str, force: bool, children: Children) -> None:
    """Bring one stage up to date, its dependencies being so.

    Raises:
        StageFailed: with the last lines that it printed.
    """
    logger = get_run_logger()
    tail: deque[str] = deque(maxlen=TAIL_LINES)

    def on_line(line: str) -> None:
        tail.append(line)
        logger.info("%s", line)

    argv = [sys.executable, "-m", "dvc", "repro", "--single-item", address]
    code = children.run(argv + ["--force"] * force, stage_environment(os.environ), on_line)
    if code != 0:
        busy = code == DVC_ERROR and any(phrase in line for phrase in DVC_BUSY for line in tail)
        failure = WorkspaceBusy if busy else StageFailed
        raise failure(f"{address} failed (exit {code}); its last lines:\n" + "\n".join(tail))


def stage_environment(environ: Mapping[str, str]) -> dict[str, str]:
    """`environ` in which `python` is this interpreter, and whose parameters are DVC's."""
    here = str(Path(sys.executable).parent)
    own = {**DVC_ENV, "PATH": here + os.pathsep + environ.get("PATH", "")}
    return {name: value for name, value in environ.items() if name != "FLAP_PARAMS"} | own


def _publish_scores(graph: Graph) -> None:
    """The metrics as an artifact of the run: one row a number."""
    rows = [
        f"| {path} | {name} | {value:.4g} |"
        for path, scores in read_scores().items()
        for name, value in scores.items()
    ]
    lines = ["| file | score | value |", "|---|---|---:|", *rows] if rows else ["No metrics yet."]
    pages = [f"`{out}`" for out in graph.outs.get("report", ())]
    lines += ["", "Report: " + ", ".join(pages)] if pages else []
    create_markdown_artifact("\n".join(lines), key="scores", description="what dvc metrics knows")


def main(
    targets: Annotated[list[str] | None, typer.Argument(help="stages or outputs")] = None,
    force: Annotated[bool, typer.Option(help="run even what has not changed")] = False,
    parallel: Annotated[int, typer.Option(min=1, help="stages at the same time")] = 1,
) -> None:
    """Bring stages up to date as Prefect tasks of this process; default: all of them."""
    try:
        with _server():
            flap(targets, force, parallel)
    except StageFailed as error:
        raise UserError(str(error)) from error


@contextmanager
def _server() -> Iterator[None]:
    """The configured server if it answers, else a temporary one that ends with us."""
    url = PREFECT_API_URL.value()
    if url and is_ours(url):
        yield
        return
    settings = {PREFECT_API_URL: None, PREFECT_SERVER_ALLOW_EPHEMERAL_MODE: True}
    with temporary_settings(updates=settings):
        yield


if __name__ == "__main__":
    run(main)
