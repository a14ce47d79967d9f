"""Ray Train instead of torchrun: the same weights, ranks that die, and the end of a run."""

import os
import signal
import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager, suppress
from pathlib import Path

import psutil
import pytest
from conftest import Corpus
from test_launch import (
    COMMAND,
    ONE_RANK_FAILS,
    STARTS,
    Run,
    checkpointed,
    is_complete,
    started,
    until,
)
from test_pretrain import project

from flap.core import supervisor
from flap.core.errors import UserError
from pipeline.launch import launcher as launch

OFTEN = {"RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.2"}  # how often Ray looks for the dead
LOOPBACK = {"127.0.0.1", "::ffff:127.0.0.1"}
STAGE = """
import os, time
from pipeline.stage import run

def main() -> None:
    print(f"rank {os.environ['RANK']} of {os.environ['WORLD_SIZE']}", flush=True)
    time.sleep(300)

run(main)
"""


@pytest.mark.parametrize(
    ("environ", "joins", "error"),
    [
        ({"FLAP_LAUNCHER": "mpi"}, False, "FLAP_LAUNCHER=mpi: expected one of torchrun, ray"),
        ({"FLAP_NNODES": "2"}, False, "FLAP_NNODES: Ray chooses the nodes"),
        ({"FLAP_HEAD": "a:1"}, False, "FLAP_HEAD: Ray chooses the nodes"),
        ({"FLAP_NPROC": "none"}, False, "FLAP_NPROC=none: a whole number from 1"),
        ({}, True, "FLAP_LAUNCHER=ray: nodes join Ray's cluster"),
    ],
)
def test_a_wrong_variable_is_named(
    environ: dict[str, str], joins: bool, error: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in ({"FLAP_LAUNCHER": "ray"} | environ).items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(launch, "exit_with_parent", lambda: None)
    with pytest.raises(UserError, match=error):
        launch.launch("m", [], joins=joins)


def test_missing_ray_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FLAP_LAUNCHER", "ray")
    monkeypatch.setenv("RAY_ADDRESS", "10.0.0.1:6379")
    monkeypatch.setitem(sys.modules, "ray", None)
    monkeypatch.delitem(sys.modules, "pipeline.launch.ray_train", raising=False)
    monkeypatch.setattr(launch, "exit_with_parent", lambda: None)
    with pytest.raises(UserError, match=r"ray is not installed.*\[ray\]"):
        launch.launch("m", [])


def processes(folder: Path) -> list[psutil.Process]:
    """Ranks of the project, and their supervisors; Ray's own are elsewhere."""
    found = []
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            if process.cwd() == str(folder) and "RANK" in process.environ():
                found.append(process)
    return found


def rank(folder: Path, number: int) -> psutil.Process:
    """The process of a rank, without its supervisor."""
    (found,) = (
        process
        for process in processes(folder)
        if process.environ()["RANK"] == str(number) and supervisor.__file__ not in process.cmdline()
    )
    return found


@pytest.mark.engine
def test_weights_equal_torchruns_after_a_rank_died(corpus: Corpus) -> None:
    folder = project(corpus, epochs=20, dropout=0.1)
    argv = [sys.executable, *COMMAND[1:]]
    here = {"FLAP_LAUNCHER": "ray", "RAY_ADDRESS": "", "FLAP_NPROC": "2"} | OFTEN
    with started(argv, folder, "ray", **here) as run:
        until(lambda: checkpointed(folder), run)
        assert run.listening() <= LOOPBACK
        rank(folder, 1).kill()
        assert run.wait() == 0, run.output
    assert "rank 1 failed (SIGKILL)" in run.output
    starts = [int(step) for step in STARTS.findall(run.output)]
    assert len(starts) == 2 and 0 == starts[0] < starts[1], run.output
    assert is_complete(folder) and not processes(folder)
    weights = folder / "data" / "pretrain" / "model" / "model.safetensors"
    on_ray = weights.read_bytes()
    with started(argv, folder, "torchrun", FLAP_NPROC="2") as run:
        assert run.wait() == 0, run.output
    assert weights.read_bytes() == on_ray


@pytest.fixture(scope="module")
def cluster() -> Iterator[dict[str, str]]:
    """A running cluster of two nodes on this machine; each node has resources for one rank."""
    made = pytest.importorskip("ray.cluster_utils").Cluster(
        initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False}
    )
    try:
        made.add_node(num_cpus=1)
        yield {"FLAP_LAUNCHER": "ray", "RAY_ADDRESS": made.address, "FLAP_NPROC": "2"}
    finally:
        made.shutdown()


def launched(stage: str, folder: Path, cluster: dict[str, str]) -> AbstractContextManager[Run]:
    """A stage of this source, run on the cluster."""
    (folder / "stage.py").write_text(stage)
    return started([sys.executable, "-m", "pipeline.launch", "stage"], folder, "run", **cluster)


@pytest.mark.engine
def test_ranks_of_two_nodes_meet_and_a_message_to_the_user_is_shown_once(
    tmp_path: Path, cluster: dict[str, str]
) -> None:
    with launched(ONE_RANK_FAILS, tmp_path, cluster) as run:
        assert run.wait() == 1
    assert run.output.count("error: no such thing; mend it\n") == 1, run.output
    assert run.output.count("no such thing; mend it") == 1, run.output
    assert run.output.count("a rank is here") == 2, run.output
    until(lambda: not processes(tmp_path))


@pytest.mark.engine
def test_a_ray_worker_that_dies_is_replaced_and_ctrl_c_leaves_nothing(
    tmp_path: Path, cluster: dict[str, str]
) -> None:
    with launched(STAGE, tmp_path, cluster) as run:
        until(lambda: run.output.count(" of 2\n") == 2, run)
        first = processes(tmp_path)
        between = rank(tmp_path, 1).parent()
        worker = between.parent() if between else None
        assert worker
        worker.kill()
        until(lambda: run.output.count(" of 2\n") == 4, run)
        until(lambda: "rank 1 failed: " in run.output and "actor died" in run.output, run)
        until(lambda: not any(process.is_running() for process in first), run)
        os.kill(run.process.pid, signal.SIGINT)
        assert run.wait() == 128 + signal.SIGINT
    assert "interrupted" in run.output
    until(lambda: not processes(tmp_path))
