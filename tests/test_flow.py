"""The flow on toy DVC workspaces: order, logs, failures, interruption; errors of the server."""

import logging
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import psutil
import pytest
from prefect.client.schemas.objects import State
from prefect.settings import PREFECT_API_URL
from prefect.testing.utilities import prefect_test_harness

from flap.core import processes
from flap.core.errors import UserError
from flap.core.processes import Children, Stopped
from pipeline.flows import dvc_graph, flow, serve

STAGES = """
stages:
  sources:
    foreach: {demo: 1, other: 2}
    do:
      cmd: echo sounds of ${key} && echo ${item} > ${key}.clips
      outs: [{ "${key}.clips": {cache: false}}]
  audio:
    cmd: MIDDLE
    deps: [demo.clips]
    outs: [{audio.mels: {cache: false}}]
  retrieval:
    cmd: "echo '{\\"text_to_audio\\": {\\"R@1\\": 0.25}}' > scores.json"
    deps: [audio.mels]
    metrics: [{scores.json: {cache: false}}]
"""


@pytest.fixture(scope="module")
def prefect() -> Iterator[None]:
    with prefect_test_harness(server_startup_timeout=90):
        yield


@pytest.fixture
def workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, with DVC and the toy stages; `audio` succeeds."""
    monkeypatch.chdir(tmp_path)
    subprocess.run([sys.executable, "-m", "dvc", "init", "--no-scm", "--quiet"], check=True)
    write_stages(tmp_path, "echo decoding && echo mel > audio.mels")
    return tmp_path


def write_stages(workspace: Path, middle: str) -> None:
    (workspace / "dvc.yaml").write_text(STAGES.replace("MIDDLE", middle))


def run_flow(**parameters: object) -> State[None]:
    return flow.flap(**parameters, return_state=True)


def test_the_graph_lists_each_stage_after_its_dependencies(workspace: Path) -> None:
    graph = dvc_graph.read_graph()
    assert list(graph.dependencies) == ["sources@demo", "audio", "retrieval", "sources@other"]
    assert graph.dependencies["retrieval"] == ("audio",)
    assert graph.outs["audio"] == ("audio.mels",)


def test_targets_may_be_groups_or_outputs_and_include_their_dependencies(workspace: Path) -> None:
    assert list(dvc_graph.read_graph(["audio.mels"]).dependencies) == ["sources@demo", "audio"]
    assert list(dvc_graph.read_graph(["sources"]).dependencies) == ["sources@demo", "sources@other"]
    with pytest.raises(UserError, match="nonsense"):
        dvc_graph.read_graph(["nonsense"])


@pytest.mark.slow
def test_stages_run_in_order_and_their_lines_are_logged(
    prefect: None, workspace: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO):
        state = run_flow()
    assert state.is_completed()
    lines = [record.getMessage() for record in caplog.records]
    shown = [line for line in lines if line in ("sounds of demo", "decoding", "sounds of other")]
    assert shown == ["sounds of demo", "decoding", "sounds of other"]
    assert dvc_graph.read_scores() == {"scores.json": {"text_to_audio.R@1": 0.25}}


@pytest.mark.slow
def test_a_failed_stage_is_named_and_its_dependents_do_not_run(
    prefect: None, workspace: Path, caplog: pytest.LogCaptureFixture
) -> None:
    write_stages(workspace, "echo the disk is on fire && false")
    with caplog.at_level(logging.INFO):
        state = run_flow(parallel=2)
    assert state.is_failed()
    assert state.message is not None
    assert "audio failed" in state.message
    assert "not run: retrieval" in state.message
    assert not (workspace / "scores.json").exists()
    assert (workspace / "other.clips").exists(), "an unrelated stage still runs"
    failures = [record.getMessage() for record in caplog.records if record.levelname == "ERROR"]
    assert any("the disk is on fire" in message for message in failures)


@pytest.mark.slow
def test_a_stage_is_retried_while_dvc_is_busy_but_not_after_a_failure(prefect: None) -> None:
    class Scripted(Children):
        """Children that end with the given exit codes and last lines, in order."""

        def __init__(self, *ends: tuple[int, str]) -> None:
            super().__init__()
            self.ends = list(ends)

        def run(self, argv: Sequence[str], env: object, on_line: Callable[[str], None]) -> int:
            code, line = self.ends.pop(0)
            on_line(line)
            return code

    stage = flow.run_stage.with_options(retry_delay_seconds=0)
    busy = (255, "ERROR: 'data/a' is busy, it is being blocked by:")
    waiting, failing = Scripted(busy, busy, (0, "done")), Scripted((255, "ERROR: no"), (0, "done"))
    assert stage("audio", False, waiting, return_state=True).is_completed()
    assert stage("audio", False, failing, return_state=True).is_failed()
    assert (len(waiting.ends), len(failing.ends)) == (0, 1)


@pytest.mark.slow
def test_an_interrupted_run_leaves_no_process_behind(prefect: None, workspace: Path) -> None:
    write_stages(workspace, "echo $$ > pid && sleep 300")
    root = Path(__file__).parents[1]
    environ = {**os.environ, "PYTHONPATH": str(root), "PREFECT_API_URL": PREFECT_API_URL.value()}
    argv = [sys.executable, "-m", "pipeline.flows.flow", "audio"]
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # CI may ignore SIGINT
    process = subprocess.Popen(argv, env=environ, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    signal.signal(signal.SIGINT, before)
    try:
        pid = int(wait_for_text(workspace / "pid"))
        assert psutil.pid_exists(pid)
        process.send_signal(signal.SIGINT)
        output, _ = process.communicate(timeout=40)
    finally:
        process.kill()
    assert process.returncode == 130, output.decode()
    assert not is_running(pid)


def test_end_also_ends_descendants_in_other_sessions(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(processes, "INTERRUPT_SECONDS", 0.5)
    monkeypatch.setattr(processes, "GRACE_SECONDS", 2.0)
    script = "setsid sh -c 'echo $$ > pid; trap \"\" INT; sleep 300' & sleep 300"
    group = Children()
    child = group.start(["sh", "-c", f"cd {tmp_path}; {script}"], os.environ)
    pid = int(wait_for_text(tmp_path / "pid"))
    group.end()
    assert child.poll() is not None
    assert not is_running(pid)
    with pytest.raises(Stopped):
        group.start(["true"], os.environ)


def test_a_background_process_that_keeps_the_output_open_is_killed() -> None:
    lines: list[str] = []
    script = "sleep 300 & echo $!; exit 3"
    assert Children().run(["sh", "-c", script], os.environ, lines.append) == 3
    assert not is_running(int(lines[0]))


def test_a_child_ends_when_its_parent_gets_sigkill(tmp_path: Path) -> None:
    child = f"['sh', '-c', 'echo $$ > {tmp_path}/pid; exec sleep 300']"
    script = "import os; from flap.core.processes import Children as C; "
    script += f"C().run({child}, os.environ, print)"
    parent = subprocess.Popen([sys.executable, "-c", script], cwd=Path(__file__).parents[1])
    pid = int(wait_for_text(tmp_path / "pid"))
    parent.kill()
    parent.wait()
    assert not is_running(pid)


def test_stages_use_this_interpreter_on_any_path() -> None:
    environ = flow.stage_environment({"PATH": "/elsewhere"})
    assert environ["PATH"].split(os.pathsep) == [str(Path(sys.executable).parent), "/elsewhere"]


def test_the_error_names_a_port_in_use(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(serve, "_handle_stop_signals", lambda handler: None)  # pytest has its own
    (tmp_path / "prefect.yaml").touch()
    with HTTPServer((serve.HOST, 0), BaseHTTPRequestHandler) as other:
        threading.Thread(target=other.serve_forever, daemon=True).start()
        with pytest.raises(UserError, match=f"port {other.server_port} is in use"):
            serve.main(other.server_port)
        other.shutdown()


def wait_for_text(path: Path, seconds: float = 40.0) -> str:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if path.exists() and (text := path.read_text().strip()):
            return text
        time.sleep(0.1)
    raise AssertionError(f"{path} did not appear")


def is_running(pid: int) -> bool:
    """Whether the process still runs after 5 s. A zombie is dead: some containers reap none."""
    deadline = time.monotonic() + 5.0
    while time.monotonic() < deadline:
        try:
            if psutil.Process(pid).status() == psutil.STATUS_ZOMBIE:
                return False
        except psutil.NoSuchProcess:
            return False
        time.sleep(0.05)
    return True
