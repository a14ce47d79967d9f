"""A vLLM server of our own: started on 127.0.0.1, waited for, and always ended.

The server runs in the serving environment, since vLLM's pins exclude ours. A supervisor ends the
server with all its processes when we end, also by `kill -9` (`flap.core.processes`).
"""

import os
import secrets
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tqdm import tqdm

from flap.captions.config import ServeConfig
from flap.captions.endpoints import Endpoints
from flap.captions.prompt import Prompt
from flap.core.errors import UserError
from flap.core.processes import end, supervised

_LOG_LINES = 15
_BLOCK_TOKENS = 32  # small blocks let short questions share all of the examples before them
_DIRECTLY = urllib.request.build_opener(urllib.request.ProxyHandler({}))
_GRACE_SECONDS = 20.0  # vLLM's engine takes its time


@contextmanager
def serve(
    model: Path, name: str, prompt: Prompt, config: ServeConfig, log: Path
) -> Iterator[Endpoints]:
    """A server for the checkpoint `model` under the name `name` while the block runs.

    Its output goes to the file `log`. The environment may choose FLAP_VLLM_PYTHON (the serving
    environment's interpreter) and FLAP_VLLM_PORT (default: a free one).

    Raises:
        UserError: no serving environment, port in use, early end or no health in time.
    """
    python, port, key = _python(), _port(), secrets.token_urlsafe(24)
    log.parent.mkdir(parents=True, exist_ok=True)
    command = [str(python), "-m", "vllm.entrypoints.openai.api_server"]
    command += _arguments(model, name, prompt, config, port, log)
    with log.open("wb") as output:
        process = supervised(command, _environment(config, key), _GRACE_SECONDS, stdout=output)
        try:
            _wait_until_healthy(process, port, log, config.startup_seconds)
            yield Endpoints((f"http://127.0.0.1:{port}/v1",), key, name)
        except UserError as error:
            if process.poll() is None:
                raise
            raise UserError(f"{error}\n{_last_lines(log)}") from error
        finally:
            end(process, _GRACE_SECONDS)


def _python() -> Path:
    path = Path(os.environ.get("FLAP_VLLM_PYTHON", ".venv-vllm/bin/python"))
    if not path.exists():
        raise UserError(
            f"{path}: no serving environment; run `make setup`, or name its interpreter in "
            "FLAP_VLLM_PYTHON, or running servers in FLAP_LLM_ENDPOINTS"
        )
    return path.absolute()


def _port() -> int:
    named = os.environ.get("FLAP_VLLM_PORT") or "0"
    if not named.isdigit() or int(named) > 65535:
        raise UserError(f"FLAP_VLLM_PORT={named}: expected a port number")
    wanted = int(named)
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", wanted))
        except OSError:
            raise UserError(
                f"port {wanted} is in use; choose another in FLAP_VLLM_PORT, or unset it "
                "to let the system choose"
            ) from None
        port: int = probe.getsockname()[1]
        return port


def _arguments(
    model: Path, name: str, prompt: Prompt, config: ServeConfig, port: int, log: Path
) -> list[str]:
    arguments = ["--model", str(model.absolute()), "--served-model-name", name]
    arguments += ["--host", "127.0.0.1", "--port", str(port), "--dtype", config.dtype]
    arguments += ["--max-model-len", str(config.max_model_len), "--enable-prefix-caching"]
    arguments += ["--tensor-parallel-size", str(config.tensor_parallel)]
    if config.data_parallel > 1:
        arguments += ["--data-parallel-size", str(config.data_parallel)]
    arguments += ["--block-size", str(_BLOCK_TOKENS)]
    if config.enforce_eager:
        arguments.append("--enforce-eager")
    if prompt.chat_template is not None:
        template = log.with_suffix(".jinja")
        template.write_text(prompt.chat_template)
        arguments += ["--chat-template", str(template.absolute())]
    return arguments


def _environment(config: ServeConfig, api_key: str) -> dict[str, str]:
    """Ours without what would lead the other interpreter to our packages; no telemetry."""
    kept = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "PYTHONHOME")}
    return kept | {
        "VLLM_API_KEY": api_key,  # not an argument: those show in every process list
        "VLLM_CPU_KVCACHE_SPACE": str(config.kv_cache_gib),
        "VLLM_CPU_NUM_OF_RESERVED_CPU": "0",  # by default one core of two would stand idle
        "VLLM_NO_USAGE_STATS": "1",
        "DO_NOT_TRACK": "1",
        "HF_HUB_OFFLINE": "1",
    }


def _wait_until_healthy(
    process: "subprocess.Popen[bytes]", port: int, log: Path, limit_s: float
) -> None:
    start = time.monotonic()
    with tqdm(desc=f"captions: vLLM starts, log {log}", bar_format="{desc} {elapsed}") as bar:
        while not _is_healthy(port):
            if bar.last_print_t + (1 if sys.stderr.isatty() else 15) < time.time():
                bar.last_print_t = time.time()
                bar.refresh()
            if process.poll() is not None:
                raise UserError(f"vLLM ended while starting (status {process.returncode})")
            if time.monotonic() - start > limit_s:
                raise UserError(
                    f"vLLM is not ready after {limit_s:.0f} s (captions.serve.startup_seconds); "
                    f"its last lines, of {log}:\n{_last_lines(log)}"
                )
            time.sleep(0.5)


def _is_healthy(port: int) -> bool:
    try:
        with _DIRECTLY.open(f"http://127.0.0.1:{port}/health", timeout=5) as response:
            return bool(response.status == 200)
    except (urllib.error.URLError, OSError):
        return False


def _last_lines(log: Path) -> str:
    lines = log.read_text(errors="replace").splitlines()[-_LOG_LINES:]
    return "\n".join(["the server's last lines:", *(f"  {line}" for line in lines)])
