"""CLIPS and TAGS shards → CAPTIONS shards of the same names.

1. A clip of the wanted splits with a row in TAGS is a question: its first caption and its tags.
   (A clip without one was rejected by `audio`.)
2. Questions of several shards are out at once, so that the server is never idle at a shard's
   end; each answer is audited.
3. A shard is written when its last answer is there.
"""

import asyncio
import json
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tqdm import tqdm

from flap.captions.audit import audit
from flap.captions.cache import Answer
from flap.captions.client import Ask
from flap.captions.config import CaptionsConfig
from flap.schemas import CAPTIONS, CLIPS, TAGS
from flap.shards import Row, read_table, write_rows


@dataclass(frozen=True)
class Question:
    """One caption to enrich."""

    clip_id: str
    original: str
    tags: tuple[str, ...]


@dataclass(frozen=True)
class Batch:
    """The questions of one shard, and what the shard holds besides."""

    target: Path
    questions: tuple[Question, ...]
    clips: int  # of the wanted splits
    without_tags_row: int  # of those, clips that TAGS does not know


@dataclass(frozen=True)
class Origin:
    """Columns that are the same in every row."""

    prompt_id: str
    model: str
    revision: str
    sampling: str

    @classmethod
    def of(cls, prompt_id: str, model: str, weights: str, config: CaptionsConfig) -> "Origin":
        sampling = {
            "temperature": config.temperature,
            "max_tokens": config.max_tokens,
            "seed": config.seed,
        }
        return cls(prompt_id, model, weights[:16], json.dumps(sampling, sort_keys=True))


def read_batch(clips: Path, tags: Path, target: Path, config: CaptionsConfig) -> Batch:
    """The questions of one shard, in the order of CLIPS."""
    columns = ("clip_id", "split", "captions")
    wanted = [
        r for r in read_table(clips, CLIPS, columns).to_pylist() if r["split"] in config.splits
    ]
    known = {r["clip_id"]: r["labels"] for r in read_table(tags, TAGS).to_pylist()}
    questions = tuple(
        Question(
            row["clip_id"], row["captions"][0], tuple(known[row["clip_id"]][: config.max_tags])
        )
        for row in wanted
        if row["clip_id"] in known
    )
    return Batch(target, questions, len(wanted), len(wanted) - len(questions))


async def enrich(
    batches: Iterable[Batch],
    ask: Ask,
    origin: Origin,
    config: CaptionsConfig,
    attempts: int,
    provenance: Mapping[str, Any],
    progress: "tqdm[Any]",
) -> None:
    """Answer and write every batch; `ask` decides how much is really sent at once."""

    async def answered(question: Question) -> Row:
        row = await enrich_one(question, ask, attempts, origin, config)
        progress.update()
        return row

    async def one(batch: Batch) -> None:
        rows = await asyncio.gather(*(answered(question) for question in batch.questions))
        write_rows(batch.target, rows, CAPTIONS, provenance)

    await _keep_full(one, batches, 2 * config.concurrency)


async def enrich_one(
    question: Question, ask: Ask, attempts: int, origin: Origin, config: CaptionsConfig
) -> Row:
    """The row of the first answer that is kept, of the first answer if none is."""
    if not question.tags:
        return caption_row(question, None, origin, config)
    rows: list[Row] = []
    for attempt in range(attempts):
        answer = await ask(question.tags, question.original, attempt)
        rows.append(caption_row(question, answer, origin, config))
        if rows[-1]["kept"] or answer is None:
            break
    return rows[-1] if rows[-1]["kept"] else rows[0]


def caption_row(
    question: Question, answer: Answer | None, origin: Origin, config: CaptionsConfig
) -> Row:
    """One row of CAPTIONS."""
    text, finish = (answer.text, answer.finish) if answer else (None, "")
    verdict = audit(question.original, question.tags, text, finish, config)
    return {
        "clip_id": question.clip_id,
        "original": question.original,
        "tags": list(question.tags),
        "prompt_id": origin.prompt_id,
        "model": origin.model,
        "revision": origin.revision,
        "sampling": origin.sampling,
        "enriched": text or "",
        "n_words": verdict.n_words,
        "tag_coverage": verdict.tag_coverage,
        "faithfulness": verdict.faithfulness,
        "invented": verdict.invented,
        "kept": verdict.reason == "",
        "reason": verdict.reason,
    }


async def _keep_full(
    one: Callable[[Batch], Awaitable[None]], batches: Iterable[Batch], questions: int
) -> None:
    """Run `one` over the batches, with at least `questions` of them out while there are any."""
    running: dict[asyncio.Future[None], int] = {}
    try:
        for batch in batches:
            running[asyncio.ensure_future(one(batch))] = len(batch.questions)
            while sum(running.values()) >= questions:
                await _first(running)
        while running:
            await _first(running)
    finally:
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)


async def _first(running: dict[asyncio.Future[None], int]) -> None:
    done, _ = await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
    for task in done:
        del running[task]
    for task in done:
        task.result()


def failed_requests(target: Path) -> int:
    """Rows of a finished shard whose request failed: a rerun asks for them again."""
    reasons: Sequence[str] = read_table(target, CAPTIONS, ["reason"])["reason"].to_pylist()
    return sum(reason == "request_failed" for reason in reasons)
