"""CLIPS and TAGS shards → CAPTIONS shards of the same names.

1. Each clip of the wanted splits that has a caption and a row in TAGS is an input: its first
   caption, and its tags. (`audio` rejected the clips without a row in TAGS.)
2. Several processes write the shards whose completions are all in the cache.
3. One process requests the other completions. Requests of several shards are in flight
   together, so that the server is busy at the end of a shard too. A shard is written when the
   last of its captions is complete.
"""

import asyncio
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
from tqdm import tqdm

from flap.captions.cache import CompletionCache
from flap.captions.cached_client import CachedClient
from flap.captions.candidates import Candidates
from flap.captions.config import CaptionsConfig
from flap.captions.prompt import limit_tags
from flap.captions.request import CaptionInput, RequestBuilder
from flap.core.schemas import CAPTIONS, CLIPS, TAGS
from flap.core.shards import read_table, write_rows


@dataclass(frozen=True)
class ShardBuilder:
    """Builds a CAPTIONS shard from a CLIPS shard and the TAGS shard of the same name."""

    requests: RequestBuilder
    tags: Path  # folder of TAGS shards
    cache: Path
    provenance: Mapping[str, Any]

    def build_from_cache(self, clips: Path, target: Path) -> None:
        """Write `target`, unless the cache lacks a completion."""
        captions = self.candidates(clips)
        with CompletionCache(self.cache) as cache:
            if self._complete_from_cache(captions, cache):
                self.write(captions, target)

    def candidates(self, clips: Path) -> list[Candidates]:
        """One for each input of the shard, without completions yet."""
        inputs = read_inputs(clips, self.tags / clips.name, self.requests.config)
        return [Candidates(caption, self.requests) for caption in inputs]

    def write(self, captions: list[Candidates], target: Path) -> None:
        write_rows(target, (each.row() for each in captions), CAPTIONS, self.provenance)

    def _complete_from_cache(self, captions: list[Candidates], cache: CompletionCache) -> bool:
        """Complete all captions; False as soon as the cache lacks a completion."""
        while incomplete := [each for each in captions if not each.is_complete]:
            if cache.get(self._next_key(incomplete[0])) is None:
                return False
            keys = [self._next_key(each) for each in incomplete]
            cached = cache.get_many(keys)
            if len(cached) < len(set(keys)):
                return False
            for each, key in zip(incomplete, keys, strict=True):
                each.add(cached[key])
        return True

    def _next_key(self, candidates: Candidates) -> bytes:
        return self.requests.key(candidates.caption, candidates.next_attempt)


def read_inputs(clips: Path, tags: Path, config: CaptionsConfig) -> list[CaptionInput]:
    """The inputs of one shard, in the order of CLIPS."""
    _, selected = _read_clips(clips, tags, config)
    rows = read_table(tags, TAGS, ["clip_id", "labels"]).to_pylist()
    tags_of_clip = {
        row["clip_id"]: limit_tags(row["labels"], config.max_tags, config.max_tag_words)
        for row in rows
    }
    return [
        CaptionInput(row["clip_id"], row["captions"][0], tags_of_clip[row["clip_id"]])
        for row in selected.to_pylist()
    ]


def count_inputs(clips: Path, tags: Path, config: CaptionsConfig) -> tuple[int, int]:
    """Number of clips of the wanted splits in one shard, and of inputs among them."""
    in_splits, selected = _read_clips(clips, tags, config)
    return len(in_splits), len(selected)


def _read_clips(clips: Path, tags: Path, config: CaptionsConfig) -> tuple[pa.Table, pa.Table]:
    """The rows of the wanted splits, and those of them that have a caption and a row in TAGS."""
    table = read_table(clips, CLIPS, ["clip_id", "split", "captions"])
    in_splits = table.filter(pc.is_in(table["split"], pa.array(config.splits)))
    tagged = read_table(tags, TAGS, ["clip_id"])["clip_id"]
    is_tagged = pc.is_in(in_splits["clip_id"], tagged)
    has_caption = pc.greater(pc.list_value_length(in_splits["captions"]), 0)
    return in_splits, in_splits.filter(pc.and_(is_tagged, has_caption))


async def build_shards(
    builder: ShardBuilder,
    shards: Iterable[Path],
    target_of: Callable[[Path], Path],
    client: CachedClient,
    on_success: Callable[[Path], None],
    progress: "tqdm[Any]",
) -> None:
    """Complete the captions of all CLIPS shards, and write the CAPTIONS shards.

    Args:
        target_of: CLIPS shard → CAPTIONS shard to write.
        on_success: called with a CLIPS shard that was written without a failed request.
    """
    open_captions = _OpenCaptions(limit=2 * builder.requests.config.concurrency)

    async def complete(candidates: Candidates) -> None:
        while not candidates.is_complete:
            candidates.add(await client.complete(candidates.caption, candidates.next_attempt))
        progress.update()
        open_captions.remove_one()

    async def build(clips: Path, captions: list[Candidates]) -> None:
        await asyncio.gather(*(complete(each) for each in captions))
        # In a thread, so that requests of other shards go on meanwhile.
        await asyncio.to_thread(builder.write, captions, target_of(clips))
        if not any(each.has_failed for each in captions):
            on_success(clips)

    try:
        async with asyncio.TaskGroup() as tasks:
            for clips in shards:
                captions = await asyncio.to_thread(builder.candidates, clips)
                open_captions.add(len(captions))
                tasks.create_task(build(clips, captions))
                await open_captions.wait_below_limit()
    except ExceptionGroup as group:
        raise group.exceptions[0] from None


class _OpenCaptions:
    """Number of captions that are not complete; the next shard is read when it is low."""

    def __init__(self, limit: int) -> None:
        self._limit, self._count, self._is_below = limit, 0, asyncio.Event()

    def add(self, count: int) -> None:
        self._count += count
        if self._count >= self._limit:
            self._is_below.clear()

    def remove_one(self) -> None:
        self._count -= 1
        if self._count < self._limit:
            self._is_below.set()

    async def wait_below_limit(self) -> None:
        if self._count >= self._limit:
            await self._is_below.wait()
