"""CLIPS and TAGS shards → CAPTIONS shards of the same names.

1. A clip of the wanted splits with a row in TAGS is a question: its first caption and its tags.
   (A clip without one was rejected by `audio`.)
2. Shards whose answers are all known are written at once, by several processes.
3. Questions of several other shards are out at the same time, so that the server is never idle
   at a shard's end; each answer is audited, and a shard is written when its last one is there.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tqdm import tqdm

from flap.captions.asker import Asked, Asker, Question
from flap.captions.cache import AnswerCache
from flap.captions.config import CaptionsConfig
from flap.captions.prompt import within_budget
from flap.captions.trial import Trial
from flap.schemas import CAPTIONS, CLIPS, TAGS
from flap.shards import read_table, write_rows


@dataclass(frozen=True)
class Enrichment:
    """All that makes a CAPTIONS shard of its inputs; called, it makes one from the cache alone."""

    asked: Asked
    model: str
    tags: Path  # folder of TAGS shards
    cache: Path
    provenance: Mapping[str, Any]

    def __call__(self, clips: Path, target: Path) -> None:
        """Write `target`, unless an answer is not known."""
        trials = self.trials(clips)
        with AnswerCache(self.cache) as cache:
            if self._answer_known(trials, cache):
                self.write(trials, target)

    def trials(self, clips: Path) -> list[Trial]:
        questions = read_questions(clips, self.tags / clips.name, self.asked.config)
        return [Trial(question, self.asked, self.model) for question in questions]

    def write(self, trials: list[Trial], target: Path) -> None:
        write_rows(target, (trial.row() for trial in trials), CAPTIONS, self.provenance)

    def _answer_known(self, trials: list[Trial], cache: AnswerCache) -> bool:
        """Answer all trials from the cache; False at the first answer that is not there."""
        while open_trials := [trial for trial in trials if not trial.is_over]:
            if cache.get(self._key(open_trials[0])) is None:
                return False
            keys = [self._key(trial) for trial in open_trials]
            known = cache.get_many(keys)
            if len(known) < len(set(keys)):
                return False
            for trial, key in zip(open_trials, keys, strict=True):
                trial.add(known[key])
        return True

    def _key(self, trial: Trial) -> bytes:
        return self.asked.key(self.asked.body(trial.question, trial.attempt))


def read_questions(clips: Path, tags: Path, config: CaptionsConfig) -> list[Question]:
    """The questions of one shard, in the order of CLIPS."""
    rows = read_table(clips, CLIPS, ["clip_id", "split", "captions"]).to_pylist()
    heard = read_table(tags, TAGS, ["clip_id", "labels"]).to_pylist()
    limits = config.max_tags, config.max_tag_words
    known = {row["clip_id"]: within_budget(row["labels"], *limits) for row in heard}
    return [
        Question(row["clip_id"], row["captions"][0], known[row["clip_id"]])
        for row in rows
        if row["split"] in config.splits and row["clip_id"] in known and row["captions"]
    ]


async def ask_shards(
    enrichment: Enrichment,
    shards: Iterable[Path],
    target_of: Callable[[Path], Path],
    asker: Asker,
    finished: Callable[[Path], None],
    progress: "tqdm[Any]",
) -> None:
    """Answer and write every shard of CLIPS.

    Args:
        finished: called with a shard once it is written without a failed request.
    """

    async def answered(trial: Trial) -> None:
        while not trial.is_over:
            trial.add(await asker(trial.question, trial.attempt))
        progress.update()

    async def one(clips: Path, trials: list[Trial]) -> None:
        await asyncio.gather(*(answered(trial) for trial in trials))
        enrichment.write(trials, target_of(clips))
        if not any(trial.has_failed for trial in trials):
            finished(clips)

    batches = ((clips, enrichment.trials(clips)) for clips in shards)
    await _keep_full(one, batches, 2 * enrichment.asked.config.concurrency)


async def _keep_full(
    one: Callable[[Path, list[Trial]], Awaitable[None]],
    batches: Iterable[tuple[Path, list[Trial]]],
    questions: int,
) -> None:
    """Run `one` over the batches, with at least `questions` of them out while there are any."""
    running: dict[asyncio.Future[None], int] = {}
    try:
        for clips, trials in batches:
            running[asyncio.ensure_future(one(clips, trials))] = len(trials)
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
