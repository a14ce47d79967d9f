"""Data order, learning rate, seeds and collectives."""

from collections import Counter
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from spawned_ranks import on_ranks

from flap.model.loss import contrastive_loss
from flap.training.distributed import World, gather_rows, is_same_on_all_ranks
from flap.training.order import MicroBatches, Pair, PairOrder, micro_batch_bounds
from flap.training.schedule import warmup_cosine
from flap.training.seeds import derive_seed


def order(
    clips: int = 23, seed: int = 0, window: int = 2, batch: int = 8, streams: int = 4
) -> PairOrder:
    shards = np.arange(clips) // 5
    captions = 1 + np.arange(clips) % 3
    return PairOrder(shards, captions, seed=seed, window=window, batch=batch, streams=streams)


@settings(max_examples=60, deadline=None)
@given(
    clips=st.integers(1, 40),
    seed=st.integers(0, 1000),
    window=st.integers(1, 9),
    streams=st.sampled_from([1, 2, 3, 6]),
)
def test_every_pair_occurs_once_per_epoch(clips: int, seed: int, window: int, streams: int) -> None:
    drawn = order(clips, seed, window, batch=6, streams=streams)
    n = drawn.pairs_per_epoch
    expected = {(clip, caption) for clip in range(clips) for caption in range(1 + clip % 3)}
    for epoch in (0, 1):
        pairs = list(drawn.pairs(epoch * n, (epoch + 1) * n))
        assert Counter((p.clip, p.caption) for p in pairs) == Counter(expected)
        assert {p.epoch for p in pairs} == {epoch}


def test_order_is_a_function_of_the_seed() -> None:
    assert list(order().pairs(0, 60)) == list(order().pairs(0, 60))
    assert list(order().pairs(0, 60)) != list(order(seed=1).pairs(0, 60))


def test_first_round_shows_each_clip_once() -> None:
    assert sorted(pair.clip for pair in order().pairs(0, 23)) == list(range(23))


def shards_of(drawn: PairOrder, positions: range) -> set[int]:
    return {pair.clip // 10 for p in positions for pair in drawn.pairs(p, p + 1)}


def test_a_stream_reads_a_window_of_shards_of_its_own() -> None:
    clips, batch, streams = 400, 8, 4
    drawn = PairOrder(
        np.arange(clips) // 10, np.ones(clips, int), seed=0, window=5, batch=batch, streams=streams
    )
    places = [range(start, clips, batch) for start in range(batch)]
    of_stream = [
        shards_of(drawn, places[2 * s]) | shards_of(drawn, places[2 * s + 1])
        for s in range(streams)
    ]
    assert [len(shards) for shards in of_stream] == [10] * streams
    assert set.union(*of_stream) == set(range(40))
    first_half = range(0, clips // 2, batch)
    assert len(shards_of(drawn, first_half)) == 5  # all of one window


@pytest.mark.parametrize("world_size", [1, 2, 4, 8])
@pytest.mark.parametrize("micro_batch", [None, 3])
def test_global_batches_are_the_same_on_any_number_of_ranks(
    world_size: int, micro_batch: int | None
) -> None:
    drawn, steps, passes = order(), range(200), 2
    parts = len(micro_batch_bounds(8 // world_size, micro_batch))
    ranks = [
        list(
            MicroBatches(
                drawn,
                steps,
                rank=rank,
                world_size=world_size,
                micro_batch=micro_batch,
                forward_passes=passes,
            )
        )
        for rank in range(world_size)
    ]
    for step in steps:
        for number in range(passes):
            start = (step * passes + number) * parts
            mine = [rank[start : start + parts] for rank in ranks]
            joined = [pair for rank in mine for part in rank for pair in part]
            assert joined == list(drawn.pairs(step * 8, step * 8 + 8))
    assert [len(rank) for rank in ranks] == [200 * passes * parts] * world_size


def test_resumed_batches_continue_where_they_stopped() -> None:
    whole: list[list[Pair]] = list(MicroBatches(order(), range(50)))
    assert whole[37:] == list(MicroBatches(order(), range(37, 50)))


def test_schedule() -> None:
    rates = [warmup_cosine(step, 100, 10) for step in range(100)]
    assert rates[0] == pytest.approx(0.1)
    assert max(rates) == rates[9] == rates[10] == 1
    assert rates[55] == pytest.approx(0.5)
    assert 0 < rates[-1] < 1e-3
    assert all(a >= b for a, b in pairwise(rates[10:]))


def test_seeds_differ_by_their_keys() -> None:
    assert len({derive_seed(a, b) for a in range(10) for b in range(10)}) == 100
    assert derive_seed(1, 2) == derive_seed(1, 2)


def test_gather_without_other_ranks_changes_nothing() -> None:
    rows = torch.randn(3, 2)
    assert gather_rows(rows) is rows
    assert contrastive_loss(rows, rows, torch.tensor(0.0)).isfinite()


def compares(world: World) -> None:
    assert is_same_on_all_ranks("the same", world)
    assert not is_same_on_all_ranks(f"rank {world.rank}", world)
    assert not is_same_on_all_ranks("first" if world.is_first else "other", world)


def test_ranks_notice_that_they_differ() -> None:
    on_ranks(2, compares)
    assert is_same_on_all_ranks("alone", World(0, 1, torch.device("cpu")))
