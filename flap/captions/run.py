"""One run of the stage `captions`: CLIPS, TAGS and a language model → unpublished CAPTIONS shards.

1. `CaptionsRun.open` reads the prompt, checks the inputs, and finds the work of a killed run.
2. `enrich` writes the shards: first from the cache, then with the help of a server.
3. `count` and `measure` describe the result.
"""

import asyncio
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from tqdm import tqdm

from flap.captions.cache import CompletionCache
from flap.captions.cached_client import CachedClient
from flap.captions.client import Client
from flap.captions.config import CaptionsConfig
from flap.captions.endpoints import Endpoints, endpoints_from_environment
from flap.captions.enrich import ShardBuilder, build_shards, count_inputs
from flap.captions.metrics import caption_metrics
from flap.captions.prompt import Prompt, load_prompt
from flap.captions.request import RequestBuilder
from flap.captions.server import serve
from flap.core.errors import UserError
from flap.core.shards import shard_paths
from flap.core.work import Work, fingerprint, identity, note_shard, run_shards

_MAX_FAILED_SHARE = 0.05  # if more requests fail, the cause is the server, not single requests


@dataclass(frozen=True)
class LanguageModel:
    """The checkpoint that writes the captions, as its manifest describes it."""

    folder: Path
    name: str
    weights_sha256: str
    has_chat_template: bool
    manifest: Mapping[str, Any]


@dataclass(frozen=True)
class CaptionsRun:
    """The inputs, the parameters and the unpublished output of one dataset."""

    builder: ShardBuilder
    model: LanguageModel
    shards: Sequence[Path]  # of CLIPS
    work: Work

    @classmethod
    def open(
        cls, clips: Path, tags: Path, model: LanguageModel, out: Path, config: CaptionsConfig
    ) -> "CaptionsRun":
        """
        Args:
            clips: folder of CLIPS shards.
            tags: folder of TAGS shards of the same names.
            out: folder of CAPTIONS shards to publish, <data>/captions/<dataset>.

        Raises:
            UserError: a TAGS shard is missing, the prompt does not fit the model, or another
                process works on `out`.
        """
        prompt = load_prompt(config.prompt)
        _check_template(config, prompt, model)
        shards = shard_paths(clips)
        missing = [str(tags / path.name) for path in shards if not (tags / path.name).exists()]
        if missing:
            raise UserError(f"{', '.join(missing)}: no such shard; run the stage tagging")
        provenance = {
            "stage": "captions",
            "llm": dict(model.manifest),
            "prompt": prompt.id,
            "captions": config.model_dump(mode="json"),
        }
        requests = RequestBuilder(prompt, model.name, model.weights_sha256, config)
        cache = out.parents[1] / ".cache" / "answers.sqlite"
        weights = model.weights_sha256
        decides = fingerprint("captions", [], config, prompt=prompt.id, weights=weights)
        work = Work.open(out, decides)
        return cls(ShardBuilder(requests, tags, cache, provenance), model, shards, work)

    def enrich(self) -> list[str]:
        """Write all shards, and return lines for the log about the requests."""
        dataset = self.work.out.name
        made_from = partial(_identity_of_inputs, self.builder.tags)
        lines = []
        with CompletionCache(self.builder.cache) as cache:
            remaining = run_shards(
                self.builder.build_from_cache,
                self.shards,
                self.work,
                "captions: from the cache",
                made_from=made_from,
            )
            if remaining:
                with self._endpoints() as endpoints:
                    lines.append(asyncio.run(self._request(remaining, endpoints, cache)))
            usage = cache.usage(dataset)
        lines.append(
            f"{usage.requests} answers of {dataset} are in the cache; the server took "
            f"{usage.seconds:.0f} s for them, summed over requests that ran side by side"
        )
        return lines

    def count(self) -> tuple[int, int]:
        """Number of clips of the wanted splits, and of inputs among them."""
        return self._count(self.shards)

    def measure(self) -> dict[str, Any]:
        """The metrics of the written shards.

        Raises:
            UserError: so many requests failed that the server must have a problem.
        """
        metrics = caption_metrics(self.work.folder)
        failed = metrics["rejected"]["request_failed"]
        if failed > _MAX_FAILED_SHARE * metrics["rows"]:
            raise UserError(
                f"{failed} of {metrics['rows']} requests failed; see the column `error` of "
                f"{self.work.folder}, fix the cause and run again: the other answers are kept"
            )
        return metrics

    async def _request(
        self, shards: Sequence[Path], endpoints: Endpoints, cache: CompletionCache
    ) -> str:
        """Complete and write the shards, and return a line for the log about the requests."""
        requests = self.builder.requests
        made_from = partial(_identity_of_inputs, self.builder.tags)
        start = time.monotonic()
        _, n_inputs = self._count(shards)
        progress: tqdm[Any]
        async with Client(endpoints, requests.config.concurrency) as server:
            client = CachedClient(server.complete, cache, requests, self.work.out.name)
            with tqdm(desc="captions", total=n_inputs, unit="caption") as progress:
                await build_shards(
                    self.builder,
                    shards,
                    target_of=lambda clips: self.work.folder / clips.name,
                    client=client,
                    on_success=partial(note_shard, self.work, made_from=made_from),
                    progress=progress,
                )
        seconds = time.monotonic() - start
        rate = progress.n / seconds
        return f"{progress.n} captions in {seconds:.0f} s ({rate:.1f}/s), {client.n_sent} requests"

    def _count(self, shards: Sequence[Path]) -> tuple[int, int]:
        tags, config = self.builder.tags, self.builder.requests.config
        counts = [count_inputs(path, tags / path.name, config) for path in shards]
        return sum(clips for clips, _ in counts), sum(inputs for _, inputs in counts)

    @contextmanager
    def _endpoints(self) -> Iterator[Endpoints]:
        """The servers that the environment names, or one that is started here."""
        requests = self.builder.requests
        running = endpoints_from_environment(requests.model)
        if running is not None:
            yield running
            return
        log = self.work.folder.parent.with_suffix(".vllm.log")  # `publish` does not remove it
        serving = requests.config.serve
        with serve(self.model.folder, requests.model, requests.prompt, serving, log) as started:
            yield started


def _identity_of_inputs(tags: Path, clips: Path) -> str:
    return f"{identity(clips)} {identity(tags / clips.name)}"


def _check_template(config: CaptionsConfig, prompt: Prompt, model: LanguageModel) -> None:
    if prompt.form == "chat" and not (model.has_chat_template or prompt.chat_template is not None):
        raise UserError(
            f"captions.prompt: '{config.prompt}' is for chat models, and {model.name} has no chat "
            "template; choose few_shot, or add a chat_template to the prompt file"
        )
