"""Prefect for this project in one terminal: server, work pool, deployments, worker.

All data of the server is in `.prefect/`. The server and the worker end with this command. A second
terminal needs no variables, because Prefect reads prefect.toml from the current folder:

    prefect deployment run flap/full --watch
"""

import json
import os
import signal
import socket
import sys
import time
import urllib.request
from collections.abc import Callable, Mapping
from pathlib import Path
from types import FrameType
from typing import Annotated, Any

import typer

from flap.core.errors import UserError
from flap.core.processes import Children
from pipeline.stage import run

HOST, PORT, POOL = "127.0.0.1", 4200, "flap"
HOME = Path(".prefect")
_NO_PROXY = urllib.request.build_opener(urllib.request.ProxyHandler({}))
STARTUP_SECONDS, CANCEL_SECONDS = 120.0, 40.0


def main(
    port: Annotated[int, typer.Option(min=1, max=65535, help="the server's port")] = PORT,
) -> None:
    """Serve the flow until Ctrl-C: Prefect server, work pool, deployments and one worker."""
    if not Path("prefect.yaml").exists():
        raise UserError("prefect.yaml: no such file; run from the project's root")
    HOME.mkdir(exist_ok=True)
    url = f"http://{HOST}:{port}/api"
    env = server_environment(os.environ, url)
    _handle_stop_signals(_interrupt)
    server, clients = Children(), Children()
    try:
        _ensure_server(server, env, port)
        _prefect(clients, env, "work-pool", "create", POOL, "--type", "process", "--overwrite")
        _prefect(clients, env, "--no-prompt", "deploy", "--all")
        _announce(port)
        worker = ["worker", "start", "--pool", POOL, "--name", POOL, "--limit", "1"]
        code = clients.start(_command(*worker), env).wait()
        raise UserError(f"the worker stopped by itself (exit {code})")
    except KeyboardInterrupt:
        _handle_stop_signals(signal.SIG_IGN)  # the cleanup takes limited time
        typer.echo("cancelling the runs, then stopping the worker and the server")
        _cancel_runs(url)
    finally:
        clients.end()
        server.end()


def server_environment(environ: Mapping[str, str], url: str) -> dict[str, str]:
    """`environ` for server and worker: the project's own home and URL, and no telemetry."""
    return {
        **environ,
        "DO_NOT_TRACK": "1",
        "PREFECT_API_URL": url,
        "PREFECT_HOME": str(HOME.absolute()),
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "PREFECT_TELEMETRY_ENABLE_RESOURCE_METRICS": "false",
    }


def is_healthy(url: str) -> bool:
    """Whether a Prefect API answers at `url`."""
    return _call(f"{url}/health") is True


def _ensure_server(children: Children, env: Mapping[str, str], port: int) -> None:
    """Start the server and wait for it, or use the server of this project that already runs."""
    url = env["PREFECT_API_URL"]
    if _in_use(port):
        if not is_this_project(url):
            raise UserError(
                f"port {port} is in use by another program; "
                f"stop it or choose one: python -m pipeline.flows.serve --port {port + 1}"
            )
        typer.echo(f"this project's server already runs on port {port}; adding a worker")
        return
    log = HOME / "server.log"
    typer.echo(f"starting the Prefect server (log: {log})")
    start = _command("server", "start", "--host", HOST, "--port", str(port))
    with log.open("w") as file:
        server = children.start(start, env, file)
    deadline = time.monotonic() + STARTUP_SECONDS
    while not is_healthy(url):
        if server.poll() is not None or time.monotonic() > deadline:
            tail = "\n".join(log.read_text(errors="replace").splitlines()[-15:])
            raise UserError(f"the Prefect server did not start on port {port}:\n{tail}")
        time.sleep(0.3)
    _mark_lost_runs_crashed(url)


def _mark_lost_runs_crashed(url: str) -> None:
    """Set runs that a killed server left as running to crashed: they would block new runs."""
    state = {"type": "CRASHED", "message": "the server or its worker was killed"}
    for run_id in _live_runs(url):
        _call(f"{url}/flow_runs/{run_id}/set_state", {"state": state, "force": True})


def is_this_project(url: str) -> bool:
    """Whether the Prefect API at `url` belongs to this project, by the folder of its data."""
    settings = _call(f"{url}/admin/settings")
    return isinstance(settings, dict) and settings.get("home") == str(HOME.absolute())


def _in_use(port: int) -> bool:
    with socket.socket() as probe:
        probe.settimeout(1.0)
        return probe.connect_ex((HOST, port)) == 0


def _call(url: str, body: Mapping[str, Any] | None = None) -> Any:
    """The JSON reply to a GET, or to a POST of `body`; None if no server answers."""
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, data, {"Content-Type": "application/json"})
    try:
        with _NO_PROXY.open(request, timeout=5) as response:
            return json.load(response)
    except (OSError, ValueError):
        return None


def _cancel_runs(url: str) -> None:
    """Have the worker cancel its runs, so that they do not stay in the state running."""
    deadline = time.monotonic() + CANCEL_SECONDS
    requested: set[str] = set()
    while (runs := _live_runs(url)) and time.monotonic() < deadline:
        for run_id in runs - requested:
            _call(f"{url}/flow_runs/{run_id}/set_state", {"state": {"type": "CANCELLING"}})
        requested |= runs
        time.sleep(0.5)


def _live_runs(url: str) -> set[str]:
    """Live runs of the deployment; runs of `python -m pipeline.flows.flow` have no deployment."""
    states = {"type": {"any_": ["PENDING", "RUNNING", "CANCELLING"]}}
    query = {"flow_runs": {"state": states}, "deployments": {"name": {"any_": ["full"]}}}
    return {found["id"] for found in _call(f"{url}/flow_runs/filter", query) or ()}


def _prefect(children: Children, env: Mapping[str, str], *arguments: str) -> None:
    lines: list[str] = []
    if children.run(_command(*arguments), env, lines.append) != 0:
        raise UserError("\n".join([f"prefect {' '.join(arguments)} failed:", *lines]))


def _command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "prefect", *arguments]


def _announce(port: int) -> None:
    other = "" if port == PORT else f"PREFECT_API_URL=http://{HOST}:{port}/api "
    typer.echo(f"\n  UI    http://{HOST}:{port}")
    typer.echo(f"  next  {other}prefect deployment run flap/full --watch   (in another terminal)")
    typer.echo("  stop  Ctrl-C\n")


def _handle_stop_signals(
    handler: Callable[[int, FrameType | None], None] | signal.Handlers,
) -> None:
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, handler)


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


if __name__ == "__main__":
    run(main)
