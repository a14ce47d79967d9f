"""Stage `captions`: CLIPS, TAGS and a language model → CAPTIONS."""

import asyncio
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer
from tqdm import tqdm

from flap.captions.asker import Asked, Asker
from flap.captions.cache import AnswerCache
from flap.captions.client import Client
from flap.captions.config import CaptionsConfig
from flap.captions.endpoints import Endpoints, endpoints_of_environment
from flap.captions.enrich import Enrichment, ask_shards, count_questions
from flap.captions.metrics import caption_metrics
from flap.captions.prompt import Prompt, load_prompt
from flap.captions.server import serve
from flap.captions.words import WORDS_FILE
from flap.core.config import load_section
from flap.core.errors import UserError
from flap.core.metrics import write_metrics
from flap.core.shards import count_rows, shard_paths
from flap.core.work import Work, fingerprint, identity, note_shard, run_shards
from flap.llm.checkpoint import Manifest, read_manifest
from pipeline import stage

_MAX_FAILED_SHARE = 0.05  # above it the server is ill, not the question


@dataclass(frozen=True)
class Job:
    """Everything that the stage works with."""

    enrichment: Enrichment
    llm: Path
    shards: Sequence[Path]  # of CLIPS
    work: Work

    @property
    def config(self) -> CaptionsConfig:
        return self.enrichment.asked.config

    def target(self, clips: Path) -> Path:
        return self.work.folder / clips.name


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
    made_from = partial(_inputs, tags)
    with AnswerCache(job.enrichment.cache) as cache:
        left = run_shards(
            job.enrichment, job.shards, job.work, "captions: known ones", made_from=made_from
        )
        if left:
            with _endpoints(job) as endpoints:
                asyncio.run(_ask(job, cache, endpoints, left, made_from))
        spent = cache.spent(out.name)
    in_splits, questions = _count(job, job.shards)
    rows = count_rows(job.work.folder)
    stage.print_counts("captions", in_splits, rows, rejected=in_splits - questions)
    measured = caption_metrics(job.work.folder) | {"server_seconds": round(spent.seconds, 1)}
    _publish(job, metrics, measured)


def _open(clips: Path, tags: Path, llm: Path, out: Path, config: CaptionsConfig) -> Job:
    manifest, prompt = read_manifest(llm), load_prompt(config.prompt)
    _check_template(config, prompt, manifest)
    shards = shard_paths(clips)
    missing = [str(tags / path.name) for path in shards if not (tags / path.name).exists()]
    if missing:
        raise UserError(f"{', '.join(missing)}: no such shard; run the stage tagging")
    made_of = {"prompt": prompt.id, "weights": manifest.sha256, "words": WORDS_FILE.read_text()}
    provenance = {"stage": "captions", "llm": manifest.model_dump(), "prompt": prompt.id}
    provenance |= {"captions": config.model_dump(mode="json")}
    asked = Asked(prompt, manifest.name, manifest.sha256, config)
    cache = out.parents[1] / ".cache" / "answers.sqlite"
    enrichment = Enrichment(asked, tags, cache, provenance)
    return Job(
        enrichment, llm, shards, Work.open(out, fingerprint("captions", [], config, **made_of))
    )


def _check_template(config: CaptionsConfig, prompt: Prompt, manifest: Manifest) -> None:
    has_template = manifest.has_chat_template or prompt.chat_template is not None
    if prompt.form == "chat" and not has_template:
        raise UserError(
            f"captions.prompt: '{config.prompt}' is for chat models, and {manifest.name} has no "
            "chat template; take few_shot, or give the prompt file a chat_template"
        )


def _inputs(tags: Path, clips: Path) -> str:
    return f"{identity(clips)} {identity(tags / clips.name)}"


@contextmanager
def _endpoints(job: Job) -> Iterator[Endpoints]:
    asked = job.enrichment.asked
    given = endpoints_of_environment(asked.model)
    if given is not None:
        yield given
        return
    log = job.work.folder.parent.with_suffix(".vllm.log")  # publishing leaves it
    with serve(job.llm, asked.model, asked.prompt, asked.config.serve, log) as started:
        yield started


async def _ask(
    job: Job,
    cache: AnswerCache,
    endpoints: Endpoints,
    left: Sequence[Path],
    made_from: Callable[[Path], str],
) -> None:
    """Answer and write the shards that are left."""
    start, (_, questions) = time.monotonic(), _count(job, left)
    note = partial(note_shard, job.work, made_from=made_from)
    progress: tqdm[Any]
    async with Client(endpoints, job.config.concurrency) as client:
        asker = Asker(client.ask, cache, job.enrichment.asked, job.work.out.name)
        with tqdm(desc="captions", total=questions, unit="caption") as progress:
            await ask_shards(job.enrichment, left, job.target, asker, note, progress)
    seconds = time.monotonic() - start
    typer.echo(
        f"captions: {progress.n} captions in {seconds:.0f} s ({progress.n / seconds:.1f}/s), "
        f"{asker.sent} requests"
    )


def _count(job: Job, shards: Sequence[Path]) -> tuple[int, int]:
    """Clips of the wanted splits, and how many of them are questions."""
    tags, config = job.enrichment.tags, job.config
    counts = [count_questions(path, tags / path.name, config) for path in shards]
    return sum(clips for clips, _ in counts), sum(questions for _, questions in counts)


def _publish(job: Job, metrics: Path, measured: dict[str, Any]) -> None:
    failed = measured["rejected"]["request_failed"]
    if failed > _MAX_FAILED_SHARE * measured["rows"]:
        raise UserError(
            f"{failed} of {measured['rows']} requests failed; see the column `error` of "
            f"{job.work.folder}, mend it and run again: answers are kept"
        )
    write_metrics(metrics, measured)
    job.work.publish()
    typer.echo(f"captions: kept {measured['kept']} of {measured['rows']}, {failed} requests failed")


if __name__ == "__main__":
    stage.run(main)
