"""The launcher: arguments of torchrun, workers that die, and runs on two hosts."""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import psutil
import pytest
from conftest import Corpus
from test_pretrain import project

from flap.core.config import read_params
from flap.core.errors import UserError
from flap.model.saved import load_flap
from pipeline.launch import join
from pipeline.launch import launcher as launch
from pipeline.launch.topology import Interface, Topology, topology

ROOT = Path(__file__).parents[1]
COMMAND = shlex.split(read_params(ROOT / "dvc.yaml")["stages"]["pretrain"]["cmd"])
LOOPBACK = topology({}).interface
HEAD = "127.0.0.1:29400"
SECONDS = 120.0  # the most that a launch may take
STARTS = re.compile(r"(\d+)/\d+ \[00:00<\?, \?step/s\]")  # what a bar shows before its first step


def test_one_node_meets_in_a_private_file_and_trains_on_the_loopback() -> None:
    node = topology({})
    assert node == Topology("1", None, True, LOOPBACK)
    assert LOOPBACK.address == "127.0.0.1" and LOOPBACK.name.startswith("lo")
    assert launch.command("m", ["--x"], {"FLAP_NPROC": "2"}, node, "/private") == [
        "--nnodes=1",
        "--rdzv-backend=c10d",
        "--rdzv-endpoint=/private/rendezvous",
        "--rdzv-conf=store_type=file",
        "--log-dir=/private",
        "--local-addr=127.0.0.1",
        "--nproc-per-node=2",
        "--max-restarts=5",
        "-m",
        "m",
        "--x",
    ]


@pytest.mark.parametrize("joins", [False, True])
def test_several_nodes_meet_at_the_head(joins: bool) -> None:
    environ = {"FLAP_NNODES": "1:3", "FLAP_HEAD": HEAD, "FLAP_NPROC": "8", "FLAP_MAX_RESTARTS": "0"}
    node = topology(environ, joins=joins)
    assert launch.command("m", [], environ, node, "/private") == [
        "--nnodes=1:3",
        "--rdzv-backend=c10d",
        f"--rdzv-endpoint={HEAD}",
        f"--rdzv-conf=is_host={int(not joins)},join_timeout=600,read_timeout=600",
        "--log-dir=/private",
        "--local-addr=127.0.0.1",
        "--nproc-per-node=8",
        "--max-restarts=0",
        "-m",
        "m",
    ]


@pytest.mark.parametrize("interface", [LOOPBACK.name, LOOPBACK.address])
def test_the_interface_can_be_chosen_by_name_or_address(interface: str) -> None:
    environ = {"FLAP_NNODES": "2", "FLAP_HEAD": "192.0.2.1:1", "FLAP_INTERFACE": interface}
    assert topology(environ).interface in (LOOPBACK, Interface(LOOPBACK.name, "::1"))


def test_slurm_describes_a_step_of_several_nodes() -> None:
    step = {
        "SLURM_STEP_NUM_NODES": "4",
        "SLURM_STEP_NUM_TASKS": "4",
        "SLURM_STEP_NODELIST": "gpu[07-09,12],login3",
        "SLURM_JOB_ID": "1234567",
        "SLURM_NODEID": "0",
        "FLAP_INTERFACE": LOOPBACK.name,  # the names of the nodes cannot be resolved here
    }
    assert topology(step) == Topology("4", "gpu07:24567", True, LOOPBACK)
    assert topology(step | {"SLURM_NODEID": "3"}) == Topology("4", "gpu07:24567", False, LOOPBACK)
    lone = step | {"SLURM_STEP_NODELIST": "gpu07,gpu09"}
    assert topology(lone).head == "gpu07:24567"
    chosen = topology(step | {"FLAP_NNODES": "2:4", "FLAP_HEAD": HEAD})
    assert (chosen.nodes, chosen.head) == ("2:4", HEAD)
    batch_script = {"SLURM_JOB_NUM_NODES": "4", "SLURM_NODEID": "0", "SLURM_JOB_ID": "1"}
    assert topology(batch_script).nodes == topology({"SLURM_STEP_NUM_NODES": "1"}).nodes == "1"
    with pytest.raises(UserError, match="--ntasks-per-node=1"):
        topology(step | {"SLURM_STEP_NUM_TASKS": "32"})


@pytest.mark.parametrize(
    ("environ", "error"),
    [
        ({"FLAP_NNODES": "two"}, "FLAP_NNODES=two: a number of nodes"),
        ({"FLAP_NNODES": "0"}, "FLAP_NNODES=0: a number of nodes"),
        ({"FLAP_NNODES": "3:2"}, "FLAP_NNODES=3:2: a number of nodes is expected, or min:max"),
        ({"FLAP_NNODES": "2"}, "FLAP_HEAD=: with FLAP_NNODES=2, host:port of the first node"),
        ({"FLAP_NNODES": "2", "FLAP_HEAD": "here"}, "FLAP_HEAD=here: "),
        ({"FLAP_NNODES": "2", "FLAP_HEAD": "here:70000"}, "FLAP_HEAD=here:70000: "),
        ({"FLAP_NNODES": "2", "FLAP_HEAD": "nowhere.invalid:1"}, "FLAP_HEAD: nowhere.invalid "),
        ({"FLAP_INTERFACE": "ib7"}, r"no ib7 on this machine; choose one of .*127\.0\.0\.1"),
        ({"FLAP_NPROC": "0"}, "FLAP_NPROC=0: a whole number from 1"),
        ({"FLAP_MAX_RESTARTS": "-1", "FLAP_NPROC": "1"}, "FLAP_MAX_RESTARTS=-1: a whole number"),
    ],
)
def test_a_wrong_variable_is_named(environ: Mapping[str, str], error: str) -> None:
    with pytest.raises(UserError, match=error):
        launch.command("m", [], environ, topology(environ), "/private")


def test_a_head_that_resolves_to_the_loopback_is_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """On Debian, the own host name resolves to 127.0.1.1, which other nodes cannot reach."""
    resolve = launch.topology.__globals__["socket"].getaddrinfo
    monkeypatch.setattr(
        "socket.getaddrinfo", lambda host, port, **more: resolve("127.0.1.1", port, **more)
    )
    with pytest.raises(UserError, match="node7 is a name of the loopback here"):
        topology({"FLAP_NNODES": "2", "FLAP_HEAD": "node7:29400"})


def test_a_joining_node_runs_the_command_of_the_stage(monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[object] = []
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr(sys, "argv", ["join"])
    monkeypatch.setattr(join, "launch", lambda *given, joins: started.extend([*given, joins]))
    join.main()
    assert started == ["pipeline.pretrain", COMMAND[4:], True]
    with pytest.raises(UserError, match="FLAP_NNODES: set it as on the first node"):
        topology({"FLAP_HEAD": HEAD}, joins=True)


@dataclass
class Run:
    """A launcher, possibly in a network namespace, whose output goes to a file."""

    process: subprocess.Popen[bytes]
    log: Path

    @property
    def output(self) -> str:
        return self.log.read_text()

    def family(self) -> list[psutil.Process]:
        with suppress(psutil.NoSuchProcess):
            launcher = psutil.Process(self.process.pid)
            return [*launcher.children(recursive=True), launcher]
        return []

    def rank(self, number: int) -> psutil.Process:
        """The process of a rank."""
        (found,) = (p for p in self.family() if p.environ().get("RANK") == str(number))
        return found

    def listening(self) -> set[str]:
        """Addresses that its processes listen at."""
        sockets = (found for p in self.family() for found in p.net_connections("inet"))
        return {found.laddr.ip for found in sockets if found.status == psutil.CONN_LISTEN}

    def wait(self) -> int:
        return self.process.wait(SECONDS)

    def kill(self) -> None:
        for process in self.family():
            with suppress(psutil.NoSuchProcess):
                process.kill()
        self.process.wait(SECONDS)


@contextmanager
def started(argv: list[str], folder: Path, name: str, **environ: str) -> Iterator[Run]:
    log = folder / f"{name}.log"
    more = {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"} | environ
    with log.open("wb") as file:
        process = subprocess.Popen(
            argv, cwd=folder, env=os.environ | more, stdout=file, stderr=file
        )
    run = Run(process, log)
    try:
        yield run
    finally:
        run.kill()


def until(condition: Callable[[], object], *runs: Run) -> None:
    deadline = time.monotonic() + SECONDS
    while not condition():
        ended = [run for run in runs if run.process.poll() is not None]
        late = time.monotonic() > deadline
        assert not (ended or late), "\n".join(run.output for run in runs)
        time.sleep(0.05)


def checkpointed(folder: Path) -> int:
    """The step of the last whole checkpoint; 0 if there is none."""
    whole = folder.glob("data/.work/pretrain/model/*/checkpoints/step-*[0-9]")
    return max((int(path.name.removeprefix("step-")) for path in whole), default=0)


def is_complete(folder: Path) -> bool:
    """Whether the model stands there with a history without gaps, and no work is left."""
    load_flap(folder / "data/pretrain/model")
    steps = pd.read_csv(folder / "metrics/pretrain.csv")["step"].tolist()
    return steps == list(range(1, len(steps) + 1)) and not checkpointed(folder)


ONE_RANK_FAILS = """
import torch
from flap.core.errors import UserError
from flap.training.distributed import mean_over_ranks, world_from_environment
from pipeline.stage import report_errors

with report_errors(), world_from_environment() as world:
    print("a rank is here", flush=True)
    mean_over_ranks(torch.zeros(1))
    if world.rank == 1:
        raise UserError("no such thing; mend it")
    mean_over_ranks(torch.zeros(1))
"""


@pytest.mark.slow
def test_a_message_to_the_user_is_shown_once_and_ends_the_run(tmp_path: Path) -> None:
    (tmp_path / "stage.py").write_text(ONE_RANK_FAILS)
    argv = [sys.executable, "-m", "pipeline.launch", "stage"]
    with started(argv, tmp_path, "run", FLAP_NPROC="3") as run:
        assert run.wait() == 1
    assert run.output.count("a rank is here") == 3, run.output
    assert run.output.count("error: no such thing; mend it\n") == 1, run.output
    assert run.output.count("no such thing; mend it") == 1, run.output


@pytest.mark.slow
def test_training_goes_on_when_a_worker_dies(corpus: Corpus) -> None:
    folder = project(corpus, epochs=30, dropout=0.1)
    argv = [sys.executable, *COMMAND[1:]]
    with started(argv, folder, "run", FLAP_NPROC="2") as run:
        for dead in (0, 1):
            before = checkpointed(folder)
            until(lambda before=before: checkpointed(folder) > before, run)
            assert run.listening() == {"127.0.0.1"}
            run.rank(dead).kill()
        assert run.wait() == 0, run.output
    starts = [int(step) for step in STARTS.findall(run.output)]
    assert len(starts) == 3 and 0 == starts[0] < starts[1] < starts[2], run.output
    assert is_complete(folder)


@pytest.mark.slow
def test_a_worker_that_keeps_dying_ends_the_run(corpus: Corpus) -> None:
    folder = project(corpus, epochs=30, dropout=0.1)
    argv = [sys.executable, *COMMAND[1:]]
    with started(argv, folder, "run", FLAP_NPROC="1", FLAP_MAX_RESTARTS="0") as run:
        until(lambda: checkpointed(folder), run)
        run.rank(0).kill()
        assert run.wait() == 1
    assert "error: rank 0 failed (SIGKILL) once more than FLAP_MAX_RESTARTS" in run.output


def ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True, capture_output=True, timeout=SECONDS)


@pytest.fixture
def hosts() -> Iterator[tuple[str, str]]:
    """Two network namespaces joined by a cable: 10.77.0.1 and 10.77.0.2, both ends named eth0."""
    if not (shutil.which("ip") and os.geteuid() == 0):
        pytest.skip("network namespaces need root and iproute2")
    first, second = names = f"flap{os.getpid()}a", f"flap{os.getpid()}b"
    try:
        try:
            for name in names:
                ip("netns", "add", name)
                ip("-n", name, "link", "set", "lo", "up")
        except subprocess.CalledProcessError as error:
            pytest.skip(f"no network namespaces here: {error.stderr.decode().strip()}")
        peer = ("peer", "name", "eth0", "netns", second)
        ip("link", "add", "eth0", "netns", first, "type", "veth", *peer)
        for number, name in enumerate(names, 1):
            ip("-n", name, "address", "add", f"10.77.0.{number}/24", "dev", "eth0")
            ip("-n", name, "link", "set", "eth0", "up")
        yield names
    finally:
        for name in names:
            subprocess.run(["ip", "netns", "delete", name], check=False, capture_output=True)


@pytest.mark.engine
def test_training_goes_on_when_a_host_is_cut_off_and_comes_back(
    corpus: Corpus, hosts: tuple[str, str]
) -> None:
    folder = project(corpus, epochs=30, dropout=0.1)
    shutil.copy(ROOT / "dvc.yaml", folder)
    first, second = (["ip", "netns", "exec", host, sys.executable] for host in hosts)
    environ = {"FLAP_NPROC": "1", "FLAP_NNODES": "2", "FLAP_HEAD": "10.77.0.1:29400"}
    joining = [*second, "-m", "pipeline.launch.join"]
    with started([*first, *COMMAND[1:]], folder, "head", **environ) as head:
        with started(joining, folder, "lost", **environ) as lost:
            until(lambda: checkpointed(folder), head, lost)
            ip("-n", hosts[1], "link", "set", "eth0", "down")
            lost.kill()
            ip("-n", hosts[1], "link", "set", "eth0", "up")
        with started(joining, folder, "back", **environ) as back:
            assert head.wait() == 0, head.output + back.output
            assert back.wait() == 0, back.output
    # Rank 0, which draws the bar, is the host with the smaller address.
    starts = [int(step) for step in STARTS.findall(head.output)]
    assert len(starts) > 1 and starts[0] == 0 < starts[-1], head.output
    assert head.output.count("2 rank(s)") == len(starts)
    assert is_complete(folder)


SRUN = """#!/bin/bash
while [[ $1 == --* ]]; do shift; done
export SLURM_STEP_NUM_NODES=2 SLURM_STEP_NUM_TASKS=2 SLURM_STEP_NODELIST=localhost,other
SLURM_NODEID=0 "$@" & first=$!
SLURM_NODEID=1 "$@" & second=$!
wait $first && wait $second
"""


@pytest.mark.engine
def test_the_slurm_script_trains_on_the_nodes_of_a_step(corpus: Corpus) -> None:
    folder = project(corpus, epochs=2, dropout=0.1)
    stages: dict[str, object] = {name: {"cmd": "true"} for name in ("audit", "tagger", "captions")}
    stages["pretrain"] = {"cmd": shlex.join(COMMAND), "outs": ["data/pretrain/model"]}
    (folder / "dvc.yaml").write_text(json.dumps({"stages": stages}))
    (folder / ".venv").symlink_to(sys.prefix)
    (folder / "bin").mkdir()
    srun = folder / "bin" / "srun"
    srun.write_text(SRUN)
    srun.chmod(0o755)
    environ = {
        "PATH": f"{srun.parent}:{os.environ['PATH']}",
        "SLURM_JOB_ID": str(os.getpid()),
        "SLURM_SUBMIT_DIR": str(folder),
        "FLAP_NPROC": "1",
        "DVC_NO_ANALYTICS": "1",
    }
    init = [sys.executable, "-m", "dvc", "init", "--no-scm", "--quiet"]
    subprocess.run(init, cwd=folder, check=True, timeout=SECONDS)
    with started(["bash", str(ROOT / "pipeline/launch/slurm.sh")], folder, "job", **environ) as job:
        assert job.wait() == 0, job.output
    assert "2 rank(s)" in job.output
    assert is_complete(folder)
