"""captions: the stage starts its server, reports its errors, and always ends it."""

import os
import signal
import socket
import subprocess
import sys
import textwrap
import time
import urllib.request
from contextlib import AbstractContextManager
from pathlib import Path

import pandas as pd
import psutil
import pytest
from captions_inputs import PARAMS, config, write_inputs

from flap.captions.endpoints import Endpoints
from flap.captions.prompt import load_prompt
from flap.captions.server import serve
from flap.core.errors import UserError

FAKE_SERVER = Path(__file__).with_name("fake_llm_server.py")
SERVING_PYTHON = PARAMS.parent / ".venv-vllm/bin/python"
# Replaces the serving environment: starts a child, maps shared memory, writes down all three.
STAND_IN = """\
#!{python}
import os, runpy, subprocess, sys
from multiprocessing import resource_tracker, shared_memory
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
memory = shared_memory.SharedMemory(create=True, size=64)
resource_tracker.unregister(memory._name, "shared_memory")
open({pids!r}, "w").write(f"{{os.getpid()}} {{child.pid}} {{memory.name}}")
print("a line of the server's own")
{then}
"""
SERVE = f"sys.argv[1:] = sys.argv[3:]; runpy.run_path({str(FAKE_SERVER)!r}, run_name='__main__')"


@pytest.fixture
def pids(tmp_path: Path) -> Path:
    return tmp_path / "pids"


def _stand_in(tmp_path: Path, pids: Path, then: str = SERVE) -> Path:
    path = tmp_path / "python"
    path.write_text(STAND_IN.format(python=sys.executable, pids=str(pids), then=then))
    path.chmod(0o755)
    return path


def _left_over(pids: Path, patience_s: float = 15.0) -> list[str]:
    """What still exists after `patience_s`: the stand-in, its child, its shared memory."""
    *numbers, memory = pids.read_text().split()
    end = time.monotonic() + patience_s
    while True:
        left = [number for number in numbers if _is_alive(int(number))]
        left += [memory] if (Path("/dev/shm") / memory).exists() else []
        if not left or time.monotonic() > end:
            return left
        time.sleep(0.05)


def _serve(tmp_path: Path, **changes: object) -> AbstractContextManager[Endpoints]:
    settings = config().serve.model_copy(update={"startup_seconds": 20.0, **changes})
    return serve(tmp_path, "fake-llm", load_prompt("few_shot"), settings, tmp_path / "vllm.log")


def test_the_server_ends_with_the_block_and_after_an_exception(
    tmp_path: Path, pids: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FLAP_VLLM_PYTHON", str(_stand_in(tmp_path, pids)))
    with _serve(tmp_path) as endpoints:
        assert urllib.request.urlopen(f"{endpoints.urls[0]}/models").status == 200
        assert endpoints.api_key not in " ".join(psutil.Process(_pid(pids)).cmdline())
    assert _left_over(pids, 0.0) == []
    with pytest.raises(ZeroDivisionError), _serve(tmp_path):
        _ = 1 / 0
    assert _left_over(pids, 0.0) == []


def test_a_server_that_ends_while_starting_shows_its_last_lines(
    tmp_path: Path, pids: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    python = _stand_in(
        tmp_path, pids, then="import time; time.sleep(2.5); sys.exit('no memory here')"
    )
    monkeypatch.setenv("FLAP_VLLM_PYTHON", str(python))
    problem = r"ended while starting[\s\S]*no memory here"
    with pytest.raises(UserError, match=problem), _serve(tmp_path):
        pass
    assert _left_over(pids, 0.0) == []


def test_a_server_that_is_never_ready_is_an_error(
    tmp_path: Path, pids: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    python = _stand_in(tmp_path, pids, then="import time; sys.stdout.flush(); time.sleep(600)")
    monkeypatch.setenv("FLAP_VLLM_PYTHON", str(python))
    problem = r"startup_seconds[\s\S]*a line of the server's own"
    with pytest.raises(UserError, match=problem), _serve(tmp_path, startup_seconds=2.0):
        pass
    assert _left_over(pids, 0.0) == []


def test_port_in_use_and_missing_environment_name_the_way_out(
    tmp_path: Path, pids: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FLAP_VLLM_PYTHON", "/nonexistent/python")
    with pytest.raises(UserError, match="make setup"), _serve(tmp_path):
        pass
    monkeypatch.setenv("FLAP_VLLM_PYTHON", str(_stand_in(tmp_path, pids)))
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        monkeypatch.setenv("FLAP_VLLM_PORT", str(port))
        problem = f"port {port} is in use.*FLAP_VLLM_PORT"
        with pytest.raises(UserError, match=problem), _serve(tmp_path):
            pass


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_the_server_does_not_outlive_a_killed_stage(
    tmp_path: Path, pids: Path, number: signal.Signals
) -> None:
    program = f"""
        import signal, time
        from pathlib import Path
        from flap.captions.prompt import load_prompt
        from flap.captions.server import serve
        from flap.captions.config import CaptionsConfig
        from flap.core.config import load_section
        settings = load_section(Path({str(PARAMS)!r}), "captions", CaptionsConfig).serve
        here = Path({str(tmp_path)!r})
        signal.signal(signal.SIGINT, signal.default_int_handler)  # CI may ignore it
        with serve(here, "fake-llm", load_prompt("few_shot"), settings, here / "vllm.log"):
            print("up", flush=True)
            time.sleep(600)
    """
    environment = os.environ | {"FLAP_VLLM_PYTHON": str(_stand_in(tmp_path, pids))}
    process = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(program)],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == b"up\n"
    process.send_signal(number)
    process.wait()
    assert _left_over(pids) == []


def test_the_stage_starts_its_own_server(
    tmp_path: Path, pids: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    inputs = write_inputs(tmp_path)
    monkeypatch.setenv("FLAP_VLLM_PYTHON", str(_stand_in(tmp_path, pids)))
    inputs.run()
    assert len(pd.read_parquet(inputs.root / "data/captions/demo")) == 18
    assert _left_over(pids, 0.0) == []
    log = inputs.root / "data/.work/captions/demo.vllm.log"
    assert "a line of the server's own" in log.read_text()


@pytest.mark.engine
@pytest.mark.skipif(not SERVING_PYTHON.exists(), reason="no serving environment; run make setup")
def test_real_vllm_serves_a_tiny_random_llama(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    serve_section = config().serve.model_dump() | {"max_model_len": 4096, "kv_cache_gib": 1}
    inputs = write_inputs(tmp_path, max_tokens=8, serve=serve_section)
    _tiny_llama(inputs.root / "data/llm/model")
    monkeypatch.setenv("FLAP_VLLM_PYTHON", str(SERVING_PYTHON))
    before = set(Path("/dev/shm").glob("psm_*"))
    inputs.run()
    captions = pd.read_parquet(inputs.root / "data/captions/demo")
    assert len(captions) == 18
    assert (captions["reason"] != "request_failed").all()
    assert set(Path("/dev/shm").glob("psm_*")) <= before


def _tiny_llama(folder: Path) -> None:
    """A checkpoint of random weights, with a tokenizer of 256 bytes and two special tokens."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    symbols = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {symbol: index for index, symbol in enumerate(["<s>", "</s>", *symbols])}
    tokenizer = Tokenizer(models.BPE(vocabulary, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>"
    ).save_pretrained(folder)
    LlamaForCausalLM(
        LlamaConfig(
            vocab_size=len(vocabulary),
            hidden_size=64,
            intermediate_size=128,
            num_hidden_layers=2,
            num_attention_heads=2,
            max_position_embeddings=4096,
            bos_token_id=0,
            eos_token_id=1,
        )
    ).save_pretrained(folder)


def _is_alive(pid: int) -> bool:
    """Whether the process exists and is no zombie."""
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def _pid(pids: Path) -> int:
    return int(pids.read_text().split()[0])
