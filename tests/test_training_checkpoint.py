"""Checkpoints: bit-identical, complete after any kill, on any number of ranks."""

import copy
import errno
import multiprocessing
import random
import resource
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Event
from typing import Any

import pytest
import torch
from spawned_ranks import on_ranks
from torch import nn
from torch.distributed.checkpoint.filesystem import FileSystemWriter
from torch.nn.parallel import DistributedDataParallel

from flap.core.errors import UserError
from flap.training.checkpoint import Checkpoints
from flap.training.checkpoint_folder import CheckpointFolder
from flap.training.distributed import World

FORKSERVER = multiprocessing.get_context("forkserver")  # preloaded by `spawned_ranks`


class Model(nn.Module):
    """Parameters with and without gradient, one that is frozen, and a buffer."""

    def __init__(self, width: int = 8, unused: bool = True) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(4, width), nn.BatchNorm1d(width), nn.Linear(width, 2))
        self.unused = nn.Parameter(torch.ones(3)) if unused else None
        self.frozen = nn.Parameter(torch.ones(3), requires_grad=False)

    def forward(self, inputs_B4: torch.Tensor) -> torch.Tensor:
        return self.layers(inputs_B4)


def build(seed: int, **shape: Any) -> tuple[Model, torch.optim.Optimizer]:
    torch.manual_seed(seed)
    model = Model(**shape)
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    return model, torch.optim.AdamW(trained, lr=0.1, betas=(0.9, 0.98))


def train(model: nn.Module, optimizer: torch.optim.Optimizer, steps: range) -> None:
    for step in steps:
        inputs = torch.randn(8, 4, generator=torch.Generator().manual_seed(step))
        optimizer.param_groups[0]["lr"] = 0.1 / (1 + step)
        optimizer.zero_grad()
        model(inputs).square().sum().backward()
        optimizer.step()


def assert_equal(one: Any, two: Any) -> None:
    """Check that two values are bit-identical and have the same types."""
    torch.testing.assert_close(one, two, rtol=0, atol=0, equal_nan=False)


def state(model: nn.Module, optimizer: torch.optim.Optimizer) -> tuple[dict[str, Any], ...]:
    return model.state_dict(), optimizer.state_dict()


def trained(steps: int, seed: int = 0, **shape: Any) -> tuple[Model, torch.optim.Optimizer]:
    model, optimizer = build(seed, **shape)
    train(model, optimizer, range(steps))
    return model, optimizer


def save(folder: Path, step: int, model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    with Checkpoints(folder, model, optimizer) as checkpoints:
        checkpoints.save(step)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@contextmanager
def full_disk(room: int = 100) -> Iterator[None]:
    """Limit files of this process to `room` bytes; a larger file fails with EFBIG, not ENOSPC."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (room, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


def test_resumed_training_is_bit_identical(tmp_path: Path) -> None:
    model, optimizer = build(0)
    average = copy.deepcopy(model)
    with Checkpoints(tmp_path, model, optimizer, ema=average) as checkpoints:
        assert checkpoints.load().step == 0
        train(model, optimizer, range(3))
        average.layers[0].weight.data.lerp_(model.layers[0].weight, 0.1)
        checkpoints.save(3, score=0.5)
    other, other_optimizer = build(1)
    other_average = copy.deepcopy(other)
    with Checkpoints(tmp_path, other, other_optimizer, ema=other_average) as checkpoints:
        progress = checkpoints.load()
    assert (progress.step, progress.score) == (3, 0.5)
    assert_equal(other_average.state_dict(), average.state_dict())
    assert_equal(state(other, other_optimizer), state(model, optimizer))
    for one in ((model, optimizer), (other, other_optimizer)):
        train(*one, range(3, 6))
    assert_equal(state(other, other_optimizer), state(model, optimizer))


def test_a_checkpoint_has_the_state_at_the_call_of_save(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trained_on, write_data = Event(), FileSystemWriter.write_data

    def late(*args: Any) -> Any:
        assert trained_on.wait(10)
        return write_data(*args)

    monkeypatch.setattr(FileSystemWriter, "write_data", late)
    model, optimizer = trained(2)
    with Checkpoints(tmp_path, model, optimizer) as checkpoints:
        for step in (2, 3):  # the second save reuses the memory of the first
            trained_on.clear()
            then = copy.deepcopy(state(model, optimizer))
            checkpoints.save(step)
            train(model, optimizer, range(step, step + 1))
            trained_on.set()
            checkpoints.wait()
            other, other_optimizer = build(1)
            Checkpoints(tmp_path, other, other_optimizer).load()
            assert_equal(state(other, other_optimizer), then)


def one_rank(world: World, folder: Path) -> None:
    """Load the checkpoint of one process, train and save; then the last rank's disk is full."""
    rank, world_size = world.rank, world.world_size
    model, optimizer = build(7 + rank, unused=False)
    with Checkpoints(folder, model, optimizer) as checkpoints:
        assert checkpoints.load().step == 1
        assert_equal(state(model, optimizer), torch.load(folder / "alone.pt"))
        parallel = DistributedDataParallel(model)
        checkpoints.save(2)
        train(parallel, optimizer, range(1, 9))  # all-reduces gradients during the write
        checkpoints.wait()
        with Checkpoints(folder, parallel, optimizer) as of_parallel:
            of_parallel.save(3, score=1.0 if rank == 0 else 2.0)
        with full_disk(100 if rank == world_size - 1 else resource.RLIM_INFINITY):
            checkpoints.save(4)
            with pytest.raises(OSError, match="too large") as raised:
                checkpoints.wait()
        assert raised.value.errno == errno.EFBIG
    if rank == 0:
        torch.save(state(model, optimizer), folder / "ranks.pt")


@pytest.mark.parametrize("world_size", [2, 4])
def test_checkpoints_load_on_another_number_of_ranks(tmp_path: Path, world_size: int) -> None:
    alone = trained(1, unused=False)
    save(tmp_path, 1, *alone)
    torch.save(state(*alone), tmp_path / "alone.pt")
    on_ranks(world_size, one_rank, tmp_path)
    assert names(tmp_path) == ["alone.pt", "ranks.pt", "step-00000002", "step-00000003"]
    model, optimizer = build(1, unused=False)
    with Checkpoints(tmp_path, model, optimizer) as checkpoints:
        progress = checkpoints.load()
    assert (progress.step, progress.score) == (3, 1)
    assert_equal(state(model, optimizer), torch.load(tmp_path / "ranks.pt"))


def tensors(model: nn.Module, optimizer: torch.optim.Optimizer) -> list[torch.Tensor]:
    states = [value for state in optimizer.state.values() for value in state.values()]
    return [*model.state_dict().values(), *states]


def save_for_ever(folder: Path) -> None:
    """Save checkpoints in a loop; all numbers of the state after step s are s."""
    torch.set_num_threads(1)
    model, optimizer = trained(1, width=400, unused=False)
    checkpoints = Checkpoints(folder, model, optimizer, keep=1)
    step = checkpoints.load().step
    while True:
        step += 1
        for tensor in tensors(model, optimizer):
            tensor.fill_(step)
        checkpoints.save(step, score=float(step % 7))


def test_a_kill_leaves_a_complete_checkpoint(tmp_path: Path) -> None:
    moments, step = random.Random(0), 0
    for _ in range(5):
        process = FORKSERVER.Process(target=save_for_ever, args=(tmp_path,))
        process.start()
        deadline = time.monotonic() + 30
        while not (tmp_path / f"step-{step + 1:08d}").exists() and time.monotonic() < deadline:
            time.sleep(0.001)
        time.sleep(moments.uniform(0, 0.1))
        process.kill()
        process.join()
        model, optimizer = build(1, width=400, unused=False)
        checkpoints = Checkpoints(tmp_path, model, optimizer, keep=1)
        assert not list(tmp_path.glob("*.partial"))
        found = checkpoints.load().step
        assert found > step
        assert all((tensor == found).all() for tensor in tensors(model, optimizer))
        step = found


def test_partial_checkpoints_are_removed_at_the_start(tmp_path: Path) -> None:
    (tmp_path / "step-00000009.partial").mkdir()
    (tmp_path / "step-00000009.partial" / "progress.json").write_text('{"step": 9}')
    assert CheckpointFolder(tmp_path, keep=1).latest() is None
    assert Checkpoints(tmp_path, *build(0)).load().step == 0
    assert names(tmp_path) == []


def test_the_last_and_the_best_are_kept(tmp_path: Path) -> None:
    model, optimizer = trained(1)
    scores = [float("nan"), 0.3, 0.1, 0.3, 0.2, float("nan")]
    with Checkpoints(tmp_path, model, optimizer, keep=2) as checkpoints:
        assert checkpoints.folder.best() is None
        for step, score in enumerate(scores, start=1):
            with torch.no_grad():
                model.layers[0].bias.fill_(step)
            checkpoints.save(step, score=score)
    assert names(tmp_path) == ["step-00000002", "step-00000005", "step-00000006"]
    with Checkpoints(tmp_path, model, optimizer, keep=1) as checkpoints:
        assert checkpoints.load(checkpoints.folder.best()).step == 2
        assert model.layers[0].bias.unique().tolist() == [2]
        checkpoints.save(7, score=0.4)
    assert names(tmp_path) == ["step-00000007"]


@pytest.mark.parametrize("room", [100, 60_000])  # full at the first value, or within the tensors
def test_a_full_disk_is_an_os_error(tmp_path: Path, room: int) -> None:
    model, optimizer = trained(1, width=4000)
    save(tmp_path, 1, model, optimizer)
    with full_disk(room), pytest.raises(OSError, match="too large") as raised:
        save(tmp_path, 2, model, optimizer)
    assert raised.value.errno == errno.EFBIG
    assert names(tmp_path) == ["step-00000001"]
    with full_disk(room), Checkpoints(tmp_path, model, optimizer) as checkpoints:
        checkpoints.save(2)
        with pytest.raises(OSError, match="too large"):
            checkpoints.save(3)
    save(tmp_path, 2, model, optimizer)
    assert names(tmp_path) == ["step-00000001", "step-00000002"]


def test_a_failed_write_does_not_hide_the_error_of_training(tmp_path: Path) -> None:
    with (
        full_disk(),
        pytest.raises(ValueError, match="diverged") as raised,
        Checkpoints(tmp_path, *trained(1)) as checkpoints,
    ):
        checkpoints.save(1)
        raise ValueError("diverged")
    assert "too large" in raised.value.__notes__[0]


def other_shape() -> tuple[nn.Module, torch.optim.Optimizer]:
    return build(1, width=9)


def fewer_tensors() -> tuple[nn.Module, torch.optim.Optimizer]:
    return build(1, unused=False)


def other_type() -> tuple[nn.Module, torch.optim.Optimizer]:
    model = Model().double()
    return model, torch.optim.AdamW(model.parameters())


def other_optimizer() -> tuple[nn.Module, torch.optim.Optimizer]:
    model = Model()
    return model, torch.optim.SGD(model.parameters(), momentum=0.9)


@pytest.mark.parametrize("other", [other_shape, fewer_tensors, other_type, other_optimizer])
def test_a_checkpoint_that_does_not_fit_is_not_loaded(tmp_path: Path, other: Any) -> None:
    save(tmp_path / "checkpoints", 1, *trained(1))
    model, optimizer = other()
    before = copy.deepcopy(model.state_dict())
    message = f"{tmp_path}/checkpoints/step-00000001: .* remove {tmp_path}/checkpoints to"
    with pytest.raises(UserError, match=message):
        Checkpoints(tmp_path / "checkpoints", model, optimizer).load()
    assert_equal(model.state_dict(), before)


def test_a_checkpoint_without_the_average_does_not_fit(tmp_path: Path) -> None:
    save(tmp_path, 1, *trained(1))
    model, optimizer = build(1)
    with pytest.raises(UserError, match="ema"):
        Checkpoints(tmp_path, model, optimizer, ema=copy.deepcopy(model)).load()
