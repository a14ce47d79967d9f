"""The Prefect flow `flap`: the stages of dvc.yaml, one task each.

DVC decides which stages run. Prefect decides when they run, and reports.

1. `read_graph` reads the stages and their dependencies from DVC.
2. Each stage becomes a task. The task runs `dvc repro --single-item <stage>` and writes its output
   to the log of the run, line by line.
3. The scores of `dvc metrics` become the artifact `scores`.

`python -m pipeline.flows.flow` runs the flow at once. It uses the server of `make serve` if that is
up, else a temporary server.
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
from pipeline.flows.serve import is_this_project
from pipeline.stage import run

TAIL_LINES = 20
DVC_ERROR, DVC_BUSY = 255, ("' is busy, it is being blocked by", "Unable to acquire lock")
BUSY_RETRIES, BUSY_SECONDS = 6, 10.0
DVC_ENV = {
    "DVC_NO_ANALYTICS": "1",
    "PYTHONUNBUFFERED": "1",  # lines reach the log at once
    "TQDM_MININTERVAL": "10",  # each update of a progress bar is a log line
}


class StageFailed(Exception):
    """A stage ended with an error; the message holds its last lines."""


class WorkspaceBusy(StageFailed):
    """Another DVC process holds the lock on a file that the stage reads or writes."""


def _is_busy(task: Any, task_run: Any, state: State[Any]) -> bool:
    return isinstance(state.result(raise_on_failure=False), WorkspaceBusy)


@flow(name="flap", log_prints=False)
def flap(targets: list[str] | None = None, force: bool = False, parallel: int = 1) -> None:
    """Run every stage that is not up to date.

    Args:
        targets: Stages or outputs to bring up to date with their dependencies; default: all.
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
    """Run all stages; returns a phrase for each failure."""
    children = Children()
    # Tasks are submitted in the graph's order. A waiting task then never holds the thread that its
    # dependency needs.
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
        except BaseException:  # cancelled or interrupted: the tasks do not notice it
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
    """Bring one stage up to date. Its dependencies must be up to date.

    Raises:
        StageFailed: the stage failed; the message has its last lines.
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
    """`environ` with this interpreter as `python`, and without FLAP_PARAMS, which DVC ignores."""
    here = str(Path(sys.executable).parent)
    own = {**DVC_ENV, "PATH": here + os.pathsep + environ.get("PATH", "")}
    return {name: value for name, value in environ.items() if name != "FLAP_PARAMS"} | own


def _publish_scores(graph: Graph) -> None:
    """Publish the metrics as an artifact of the run, with one row for each number."""
    rows = [
        f"| {path} | {name} | {value:.4g} |"
        for path, scores in read_scores().items()
        for name, value in scores.items()
    ]
    lines = ["| file | score | value |", "|---|---|---:|", *rows] if rows else ["No metrics yet."]
    pages = [f"`{out}`" for out in graph.outs.get("report", ())]
    lines += ["", "Report: " + ", ".join(pages)] if pages else []
    create_markdown_artifact("\n".join(lines), key="scores", description="scores of dvc metrics")


def main(
    targets: Annotated[list[str] | None, typer.Argument(help="stages or outputs")] = None,
    force: Annotated[bool, typer.Option(help="run stages even if nothing changed")] = False,
    parallel: Annotated[int, typer.Option(min=1, help="stages at the same time")] = 1,
) -> None:
    """Bring stages up to date as Prefect tasks in this process; default: all stages."""
    try:
        with _server():
            flap(targets, force, parallel)
    except StageFailed as error:
        raise UserError(str(error)) from error


@contextmanager
def _server() -> Iterator[None]:
    """Use the configured server if it answers, else a temporary server that ends with the block."""
    url = PREFECT_API_URL.value()
    if url and is_this_project(url):
        yield
        return
    settings = {PREFECT_API_URL: None, PREFECT_SERVER_ALLOW_EPHEMERAL_MODE: True}
    with temporary_settings(updates=settings):
        yield


if __name__ == "__main__":
    run(main)
