"""CLIPS and TAGS shards → CAPTIONS shards of the same names.

1. A clip of the wanted splits with a row in TAGS is a question: its first caption and its tags.
   (A clip without one was rejected by `audio`.)
2. Shards whose answers are all known are written at once, by several processes.
3. Questions of several other shards are out at the same time, so that the server is never idle
   at a shard's end; each answer is audited, and a shard is written when its last one is there.
"""

import asyncio
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
from tqdm import tqdm

from flap.captions.asker import Asked, Asker, Question
from flap.captions.cache import AnswerCache
from flap.captions.config import CaptionsConfig
from flap.captions.prompt import within_budget
from flap.captions.trial import Trial
from flap.core.schemas import CAPTIONS, CLIPS, TAGS
from flap.core.shards import read_table, write_rows


@dataclass(frozen=True)
class Enrichment:
    """All that makes a CAPTIONS shard of its inputs; called, it makes one from the cache alone."""

    asked: Asked
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
        return [Trial(question, self.asked) for question in questions]

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
    _, asked = _read_clips(clips, tags, config)
    limits = config.max_tags, config.max_tag_words
    heard = read_table(tags, TAGS, ["clip_id", "labels"]).to_pylist()
    known = {row["clip_id"]: within_budget(row["labels"], *limits) for row in heard}
    return [
        Question(row["clip_id"], row["captions"][0], known[row["clip_id"]])
        for row in asked.to_pylist()
    ]


def count_questions(clips: Path, tags: Path, config: CaptionsConfig) -> tuple[int, int]:
    """Clips of the wanted splits in one shard, and how many of them are questions."""
    in_splits, asked = _read_clips(clips, tags, config)
    return len(in_splits), len(asked)


def _read_clips(clips: Path, tags: Path, config: CaptionsConfig) -> tuple[pa.Table, pa.Table]:
    """The rows of the wanted splits, and those of them that have a caption and a row in TAGS."""
    table = read_table(clips, CLIPS, ["clip_id", "split", "captions"])
    in_splits = table.filter(pc.is_in(table["split"], pa.array(config.splits)))
    heard = read_table(tags, TAGS, ["clip_id"])["clip_id"]
    has_caption = pc.greater(pc.list_value_length(in_splits["captions"]), 0)
    return in_splits, in_splits.filter(pc.and_(pc.is_in(in_splits["clip_id"], heard), has_caption))


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

    out = _Out(2 * enrichment.asked.config.concurrency)

    async def answered(trial: Trial) -> None:
        while not trial.is_over:
            trial.add(await asker(trial.question, trial.attempt))
        progress.update()
        out.come_back()

    async def one(clips: Path, trials: list[Trial]) -> None:
        await asyncio.gather(*(answered(trial) for trial in trials))
        # In a thread, so that meanwhile the server is asked on.
        await asyncio.to_thread(enrichment.write, trials, target_of(clips))
        if not any(trial.has_failed for trial in trials):
            finished(clips)

    try:
        async with asyncio.TaskGroup() as shards_at_work:
            for clips in shards:
                trials = await asyncio.to_thread(enrichment.trials, clips)
                out.send(len(trials))
                shards_at_work.create_task(one(clips, trials))
                await out.wait_for_room()
    except ExceptionGroup as group:
        raise group.exceptions[0] from None


class _Out:
    """Questions that are out; more are sent while there are fewer than `enough`."""

    def __init__(self, enough: int) -> None:
        self._enough, self._questions, self._room = enough, 0, asyncio.Event()

    def send(self, questions: int) -> None:
        self._questions += questions
        if self._questions >= self._enough:
            self._room.clear()

    def come_back(self) -> None:
        self._questions -= 1
        if self._questions < self._enough:
            self._room.set()

    async def wait_for_room(self) -> None:
        if self._questions >= self._enough:
            await self._room.wait()
