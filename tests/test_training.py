"""Data order, schedule, checkpoints, and gradients over ranks."""

from collections import Counter
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.multiprocessing as mp
from hypothesis import given, settings
from hypothesis import strategies as st

from flap.model.loss import contrastive_loss
from flap.training.checkpoint import load_checkpoint, save_checkpoint
from flap.training.distributed import gather_rows, ranks_from_environment
from flap.training.order import GlobalBatches, Pair, PairOrder
from flap.training.schedule import warmup_cosine
from flap.training.seeds import seed_of


def order(clips: int = 23, seed: int = 0, window: int = 2) -> PairOrder:
    shards = np.arange(clips) // 5
    captions = 1 + np.arange(clips) % 3
    return PairOrder(shards, captions, seed, window)


@settings(max_examples=30, deadline=None)
@given(clips=st.integers(1, 40), seed=st.integers(0, 1000), window=st.integers(1, 9))
def test_every_pair_once_an_epoch(clips: int, seed: int, window: int) -> None:
    drawn = order(clips, seed, window)
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


def test_a_reader_needs_only_a_window_of_shards() -> None:
    shards = [pair.clip // 5 for pair in order(clips=50, window=2).pairs(0, 50)]
    for start in range(0, 50, 10):
        assert len(set(shards[start : start + 10])) == 2


@pytest.mark.parametrize("world_size", [1, 2, 4])
def test_global_batches_are_the_same_on_any_number_of_ranks(world_size: int) -> None:
    steps = range(200)
    ranks = [
        list(GlobalBatches(order(), 8, steps, rank=rank, world_size=world_size))
        for rank in range(world_size)
    ]
    for step in steps:
        joined = [pair for rank in ranks for pair in rank[step]]
        assert joined == list(order().pairs(step * 8, step * 8 + 8))


def test_resumed_batches_go_on_where_they_stopped() -> None:
    whole = list(GlobalBatches(order(), 8, range(50), rank=0, world_size=1))
    rest: list[list[Pair]] = list(GlobalBatches(order(), 8, range(37, 50), rank=0, world_size=1))
    assert whole[37:] == rest


def test_schedule() -> None:
    rates = [warmup_cosine(step, 100, 10) for step in range(100)]
    assert rates[0] == pytest.approx(0.1)
    assert max(rates) == rates[9] == rates[10] == 1
    assert rates[55] == pytest.approx(0.5)
    assert 0 < rates[-1] < 1e-3
    assert all(a >= b for a, b in pairwise(rates[10:]))


def test_seeds_differ_by_what_they_are_for() -> None:
    assert len({seed_of(a, b) for a in range(10) for b in range(10)}) == 100
    assert seed_of(1, 2) == seed_of(1, 2)


def test_checkpoint_restores_model_and_optimiser(tmp_path: Path) -> None:
    def make() -> tuple[torch.nn.Module, torch.optim.Optimizer]:
        torch.manual_seed(0)
        model = torch.nn.Linear(3, 2)
        return model, torch.optim.AdamW(model.parameters(), lr=0.1)

    def step(model: torch.nn.Module, optimizer: torch.optim.Optimizer) -> None:
        optimizer.zero_grad()
        model(torch.ones(1, 3)).square().sum().backward()
        optimizer.step()

    model, optimizer = make()
    assert load_checkpoint(tmp_path / "c.pt", model, optimizer) == 0
    for _ in range(3):
        step(model, optimizer)
    save_checkpoint(tmp_path / "c.pt", 3, model, optimizer)
    step(model, optimizer)
    other, other_optimizer = make()
    assert load_checkpoint(tmp_path / "c.pt", other, other_optimizer) == 3
    step(other, other_optimizer)
    for one, two in zip(model.parameters(), other.parameters(), strict=True):
        assert torch.equal(one, two)


def towers() -> torch.nn.ModuleList:
    torch.manual_seed(0)
    return torch.nn.ModuleList(torch.nn.Linear(6, 4) for _ in range(2)).double()


def loss_of(model: torch.nn.ModuleList, inputs: torch.Tensor) -> torch.Tensor:
    audio, text = (
        gather_rows(torch.nn.functional.normalize(tower(x), dim=-1))
        for tower, x in zip(model, inputs, strict=True)
    )
    # float64 all through, which `contrastive_loss` would round to float32
    logits = 3.0 * audio @ text.T
    right = torch.arange(len(logits))
    return torch.nn.functional.cross_entropy(logits, right)


def one_rank(rank: int, world_size: int, port: int, folder: str) -> None:
    import os

    os.environ |= {
        "RANK": str(rank),
        "WORLD_SIZE": str(world_size),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
    }
    inputs = torch.load(f"{folder}/inputs.pt", weights_only=True)
    with ranks_from_environment() as ranks:
        model = towers()
        parallel = torch.nn.parallel.DistributedDataParallel
        wrapped = torch.nn.ModuleList(parallel(tower) for tower in model)
        mine = inputs.chunk(world_size, dim=1)[ranks.rank]
        loss_of(wrapped, mine).backward()
        gradients = [parameter.grad for parameter in model.parameters()]
        torch.save(gradients, f"{folder}/gradients-{ranks.rank}.pt")


@pytest.mark.parametrize("world_size", [2, 4])
def test_gradients_over_ranks_are_those_of_one_process(tmp_path: Path, world_size: int) -> None:
    inputs = torch.randn(2, 8, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    torch.save(inputs, tmp_path / "inputs.pt")
    alone = towers()
    loss_of(alone, inputs).backward()
    port = torch.distributed.TCPStore("127.0.0.1", 0, 1, is_master=True).port
    mp.spawn(one_rank, (world_size, port, str(tmp_path)), nprocs=world_size)
    for rank in range(world_size):
        found = torch.load(tmp_path / f"gradients-{rank}.pt", weights_only=True)
        for gradient, parameter in zip(found, alone.parameters(), strict=True):
            torch.testing.assert_close(gradient, parameter.grad, atol=1e-10, rtol=1e-8)


def test_gather_alone_changes_nothing() -> None:
    rows = torch.randn(3, 2)
    assert gather_rows(rows) is rows
    assert contrastive_loss(rows, rows, torch.tensor(0.0)).isfinite()
