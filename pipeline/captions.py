"""Stage `captions`: CLIPS, TAGS and a language model → CAPTIONS."""

import asyncio
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer
from tqdm import tqdm

from flap.captions.cache import AnswerCache
from flap.captions.client import Ask, CachedAsker, Unknown, ask_nobody
from flap.captions.config import CaptionsConfig
from flap.captions.endpoints import Client, Endpoints, endpoints_of_environment
from flap.captions.enrich import Batch, Origin, enrich, enrich_one, failed_requests, read_batch
from flap.captions.metrics import caption_metrics
from flap.captions.prompt import Prompt, load_prompt
from flap.captions.server import serve
from flap.captions.words import WORDS_FILE
from flap.config import load_section
from flap.errors import UserError
from flap.llm.checkpoint import Manifest, read_manifest
from flap.schemas import CAPTIONS
from flap.shards import count_rows, read_folder, shard_paths
from flap.work import Work, fingerprint
from pipeline import stage

_MAX_FAILED_SHARE = 0.05  # above it the server is ill, not the question


@dataclass(frozen=True)
class Job:
    """Everything that the stage works with."""

    config: CaptionsConfig
    prompt: Prompt
    llm: Path
    manifest: Manifest
    shards: tuple[tuple[Path, Path], ...]  # CLIPS and TAGS, of one name
    work: Work

    def origin(self) -> Origin:
        """What is the same in every row."""
        return Origin.of(self.prompt.id, self.manifest.name, self.manifest.sha256, self.config)

    def todo(self) -> Iterator[Batch]:
        """Batches that are not written yet, or were written with failed requests."""
        for clips, tags in self.shards:
            target = self.work.folder / clips.name
            if not target.exists() or failed_requests(target):
                yield read_batch(clips, tags, target, self.config)


def main(
    clips: Annotated[Path, typer.Option(help="folder of CLIPS shards")],
    tags: Annotated[Path, typer.Option(help="folder of TAGS shards")],
    llm: Annotated[Path, typer.Option(help="checkpoint directory of the stage llm")],
    out: Annotated[Path, typer.Option(help="folder of CAPTIONS shards to write")],
    metrics: Annotated[Path, typer.Option(help="JSON file of metrics to write")],
    params: Annotated[Path, typer.Option(help="parameters file")] = Path("params.yaml"),
) -> None:
    """Enrich captions with the sound events that were detected, and audit what comes back.

    vLLM is started from the serving environment, unless FLAP_LLM_ENDPOINTS names running servers
    (comma-separated base URLs; FLAP_LLM_API_KEY is their key).
    """
    job = _open(clips, tags, llm, out, load_section(params, "captions", CaptionsConfig))
    batches = [read_batch(c, t, job.work.folder / c.name, job.config) for c, t in job.shards]
    in_splits = sum(batch.clips for batch in batches)
    without_mel = sum(batch.without_tags_row for batch in batches)
    with AnswerCache(out.parents[1] / ".cache" / "captions.sqlite") as cache:
        _answer(job, cache, in_splits - without_mel)
    stage.print_counts("captions", in_splits, count_rows(job.work.folder), without_mel)
    _publish(job, metrics)


def _open(clips: Path, tags: Path, llm: Path, out: Path, config: CaptionsConfig) -> Job:
    manifest, prompt = read_manifest(llm), load_prompt(config.prompt)
    has_template = manifest.has_chat_template or prompt.chat_template is not None
    if prompt.form == "chat" and not has_template:
        raise UserError(
            f"captions.prompt: '{config.prompt}' is for chat models, and {manifest.name} has no "
            "chat template; take few_shot, or give the prompt file a chat_template"
        )
    shards = tuple((path, tags / path.name) for path in shard_paths(clips))
    missing = [str(path) for _, path in shards if not path.exists()]
    if missing:
        raise UserError(f"{', '.join(missing)}: no such shard; run the stage tagging")
    made_of = {"prompt": prompt.id, "weights": manifest.sha256, "words": WORDS_FILE.read_text()}
    inputs = [path for pair in shards for path in pair]
    work = Work.open(out, fingerprint(inputs, config, **made_of))
    return Job(config, prompt, llm, manifest, shards, work)


def _answer(job: Job, cache: AnswerCache, rows: int) -> None:
    """Write all batches; no server is started if the cache knows every answer."""
    if asyncio.run(_knows_all(job, cache)):
        asyncio.run(_enrich(job, cache, None, rows))
        return
    with _endpoints(job) as endpoints:
        asyncio.run(_enrich(job, cache, endpoints, rows))


async def _knows_all(job: Job, cache: AnswerCache) -> bool:
    asker = CachedAsker(ask_nobody, cache, job.manifest.sha256, job.prompt, job.config)
    attempts = job.prompt.attempts(job.config.tries)
    try:
        for batch in job.todo():
            for question in batch.questions:
                await enrich_one(question, asker, attempts, job.origin(), job.config)
    except Unknown:
        return False
    return True


@contextmanager
def _endpoints(job: Job) -> Iterator[Endpoints]:
    given = endpoints_of_environment(job.manifest.name)
    if given is not None:
        yield given
        return
    log = job.work.folder.parent / "vllm.log"
    with serve(job.llm, job.manifest.name, job.prompt, job.config.serve, log) as started:
        yield started


@asynccontextmanager
async def _asking(job: Job, endpoints: Endpoints | None) -> AsyncIterator[Ask]:
    if endpoints is None:
        yield ask_nobody
        return
    client = Client(endpoints, job.prompt, job.config)
    try:
        await client.check()
        yield client.ask
    finally:
        await client.close()


async def _enrich(job: Job, cache: AnswerCache, endpoints: Endpoints | None, rows: int) -> None:
    weights, start = job.manifest.sha256, time.monotonic()
    provenance = {"stage": "captions", "llm": job.manifest.model_dump(), "prompt": job.prompt.id}
    provenance |= {"captions": job.config.model_dump(mode="json")}
    done = rows - sum(len(batch.questions) for batch in job.todo())
    async with _asking(job, endpoints) as ask:
        asker = CachedAsker(ask, cache, weights, job.prompt, job.config)
        progress: tqdm[Any]
        with tqdm(desc="captions", initial=done, total=rows, unit="caption") as progress:
            attempts = job.prompt.attempts(job.config.tries)
            await enrich(
                job.todo(), asker, job.origin(), job.config, attempts, provenance, progress
            )
    seconds = time.monotonic() - start
    typer.echo(
        f"captions: {rows - done} captions in {seconds:.0f} s ({(rows - done) / seconds:.1f}/s), "
        f"{asker.asked} requests"
    )


def _publish(job: Job, metrics: Path) -> None:
    captions = read_folder(job.work.folder, CAPTIONS)
    failed = int((captions["reason"] == "request_failed").sum())
    if failed > _MAX_FAILED_SHARE * len(captions):
        raise UserError(
            f"{failed} of {len(captions)} requests failed; see the messages above, mend it and "
            "run again: answers are kept"
        )
    measured = caption_metrics(captions)
    stage.write_metrics(metrics, measured)
    job.work.publish()
    typer.echo(f"captions: kept {measured['kept']} of {measured['rows']}, {failed} requests failed")


if __name__ == "__main__":
    stage.run(main)
