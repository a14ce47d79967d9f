"""Captions per second of the stage `captions`, compared with bare requests to the same server.

    python -m benchmarks.captions [--rows 3000] [--seconds 30]
    FLAP_LLM_ENDPOINTS=http://127.0.0.1:8000/v1 python -m benchmarks.captions --model NAME

The server is the one in FLAP_LLM_ENDPOINTS, or a fake that answers after 50 to 150 ms. The stage
reads CLIPS and TAGS, sends requests, caches and checks the answers, and writes CAPTIONS. In turn
with the stage, the same requests are sent without any of that, with the same concurrency. Keys of
`ratios`, and the values expected:

    vs_raw    captions per second of the stage / bare requests per second: at least 0.95
    fake_rps  requests per second of the stage to a fake that answers in 1 ms (not a ratio):
              at least 1500 on two cores
"""

import asyncio
import contextlib
import io
import os
import random
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any
from unittest.mock import patch

import aiohttp
import typer
from ruamel.yaml import YAML

from benchmarks.interleaved import interleaved, ratio, report
from flap.captions.config import CaptionsConfig
from flap.captions.enrich import read_inputs
from flap.captions.prompt import load_prompt
from flap.captions.request import RequestBuilder
from flap.core.audioset import display_names
from flap.core.config import load_section, read_params
from flap.core.schemas import CLIPS, TAGS
from flap.core.shards import Row, shard_name, write_rows
from flap.llm.checkpoint import Manifest
from pipeline import captions as stage

FAKE_SERVER = Path(__file__).parents[1] / "tests/fake_llm_server.py"
FAKE_MODEL = "fake-llm"
SHARD_ROWS = 500
WORDS = ("dog", "bark", "rain", "street", "man", "talk", "engine", "door", "bird", "sing", "two")


def main(
    rows: Annotated[int, typer.Option(help="captions per run")] = 3000,
    seconds: Annotated[float, typer.Option(help="measuring time, after warming up")] = 30,
    latency_ms: Annotated[float, typer.Option(help="of the fake server, for vs_raw")] = 100.0,
    model: Annotated[str, typer.Option(help="its name at FLAP_LLM_ENDPOINTS")] = FAKE_MODEL,
) -> None:
    """Time the stage and bare requests."""
    given = os.environ.get("FLAP_LLM_ENDPOINTS")
    with tempfile.TemporaryDirectory() as name, contextlib.ExitStack() as servers:
        inputs = Inputs(Path(name), rows, model)
        url = given or servers.enter_context(fake_server(latency_ms / 1000))
        quick = servers.enter_context(fake_server(0.001))
        alternatives = {"stage": lambda: inputs.run(url), "raw": lambda: inputs.raw(url)}
        if model == FAKE_MODEL:
            alternatives["quick"] = lambda: inputs.run(quick)
        taken = interleaved(alternatives, seconds)
    ratios = {"vs_raw": ratio(taken, "raw", "stage")}
    if "quick" in taken:
        ratios["fake_rps"] = rows / min(taken["quick"])
    rates = {name: round(rows / min(times)) for name, times in taken.items()}
    report("captions", ratios, a_second=rates, rounds=len(taken["stage"]), cores=os.cpu_count())


class Inputs:
    """A project folder with the inputs of the stage."""

    def __init__(self, root: Path, rows: int, model: str) -> None:
        self._root, self._runs = root, 0
        rng = random.Random(0)
        clips = [_clip(i, rng) for i in range(rows)]
        for start in range(0, rows, SHARD_ROWS):
            part, name = clips[start : start + SHARD_ROWS], shard_name(start // SHARD_ROWS)
            write_rows(root / "clips" / name, part, CLIPS, {})
            write_rows(root / "tags" / name, [_tags(clip, rng) for clip in part], TAGS, {})
        self._params = root / "params.yaml"
        section = read_params(Path("params.yaml"))["captions"]
        section |= {"splits": ["train"], "concurrency": 64, "tries": 1}
        with self._params.open("w") as file:
            YAML().dump({"captions": section}, file)
        self._model = model
        (root / "llm").mkdir()
        (root / "llm/flap_llm.json").write_text(_manifest(model).model_dump_json())

    def run(self, url: str) -> None:
        """Run the stage with an empty cache."""
        self._runs += 1
        data = self._root / f"data{self._runs}"
        with (
            patch.dict(os.environ, {"FLAP_LLM_ENDPOINTS": url, "FLAP_JOBS": "1"}),
            patch.object(stage, "PARAMS", self._params),
            contextlib.redirect_stdout(io.StringIO()),
        ):
            stage.main(
                clips=self._root / "clips",
                tags=self._root / "tags",
                llm=self._root / "llm",
                out=data / "captions/fake",
                metrics=data / "metrics.json",
            )

    def raw(self, url: str) -> None:
        """Send the requests of the stage, and do nothing else."""
        asyncio.run(_send_bare(f"{url}/completions", self._bodies(), 64))

    def _bodies(self) -> list[dict[str, Any]]:
        config = load_section(self._params, "captions", CaptionsConfig)
        requests = RequestBuilder(load_prompt(config.prompt), self._model, "", config)
        captions = (
            caption
            for clips in sorted((self._root / "clips").iterdir())
            for caption in read_inputs(clips, self._root / "tags" / clips.name, config)
        )
        return [requests.body(caption, 0) | {"model": self._model} for caption in captions]


async def _send_bare(url: str, bodies: list[dict[str, Any]], concurrency: int) -> None:
    remaining = iter(bodies)
    headers = {"Authorization": f"Bearer {os.environ.get('FLAP_LLM_API_KEY', 'none')}"}

    async def work(session: aiohttp.ClientSession) -> None:
        for body in remaining:
            async with session.post(url, json=body) as response:
                await response.json()

    connector = aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(connector=connector, headers=headers) as session:
        await asyncio.gather(*(work(session) for _ in range(concurrency)))


@contextmanager
def fake_server(delay_s: float) -> Iterator[str]:
    """The fake server of the tests, in another process."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, str(FAKE_SERVER), "--port", str(port), "--delay", str(delay_s)]
    process = subprocess.Popen(command)
    try:
        while process.poll() is None:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port)):
                break
            time.sleep(0.05)
        yield f"http://127.0.0.1:{port}/v1"
    finally:
        process.terminate()
        process.wait()


def _clip(number: int, rng: random.Random) -> Row:
    empty = dict.fromkeys(CLIPS.schema({}).names, "")
    nothing = {"labels": [], "offset": None, "n_bytes": None, "duration_s": None}
    caption = f"Clip {number}: a {' '.join(rng.choices(WORDS, k=9))}."
    known = {"clip_id": f"fake/{number:07d}", "split": "train", "captions": [caption]}
    return empty | nothing | known


def _tags(clip: Row, rng: random.Random) -> Row:
    labels = rng.sample(display_names(), 3)
    scores = [0.9, 0.6, 0.4]
    return {"clip_id": clip["clip_id"], "labels": labels, "scores": scores, "tagger_id": "t"}


def _manifest(model: str) -> Manifest:
    return Manifest(
        name=model,
        kind="local",
        source="benchmark",
        revision="",
        sha256="0" * 64,
        licence="",
        has_chat_template=False,
    )


if __name__ == "__main__":
    typer.run(main)
