"""Sharded training gives the model of DDP, also from checkpoints of other numbers of ranks."""

from pathlib import Path

import pandas as pd
import pytest
import torch
from conftest import Corpus
from spawned_ranks import on_ranks
from test_pretrain import project, train

from flap.core.config import load_section
from flap.core.errors import UserError
from flap.mels.clips import usable_clips
from flap.model.config import EncoderConfig, ModelConfig
from flap.model.saved import load_flap
from flap.pretrain.build import build_model
from flap.pretrain.config import PretrainConfig
from flap.pretrain.history import MACHINE_COLUMNS, Row
from flap.pretrain.loop import HISTORY, Trainer
from flap.pretrain.pairs import training_clips
from flap.training.distributed import World

EVERYTHING = {  # all options of the trainer
    "micro_batch: null": "micro_batch: 3",
    "ema_decay: null": "ema_decay: 0.9",
    "max_gradient_norm: null": "max_gradient_norm: 0.5",
    "unmasked_steps: 0": "unmasked_steps: 4",
    "evaluate_every: 10": "evaluate_every: 5",
}
STOP = 13  # between two checkpoints
Weights = dict[str, torch.Tensor]


def trainer_of(data: Path, world: World) -> Trainer:
    params = data.parent / "params.yaml"
    config = load_section(params, "pretrain", PretrainConfig)
    encoder = load_section(params, "encoder", EncoderConfig)
    model_config = load_section(params, "model", ModelConfig)
    folders = (data / "sources", data / "audio")
    clips = training_clips(*folders, data / "captions", ["toy"], config.captions)
    validation = usable_clips(*folders, ["toy"], ["val"])
    model, tokenizer, _ = build_model(
        config, encoder, model_config, clips, data / "tagger" / "model"
    )
    return Trainer(config, model, tokenizer, clips, validation, world)


def trained(data: Path, world: World, folder: Path) -> Weights:
    trainer = trainer_of(data, world)
    trainer.run(folder)
    return trainer.full_model().state_dict()


def interrupt(data: Path, world: World, folder: Path) -> None:
    def stop(row: Row) -> None:
        if row["step"] == str(STOP):
            raise InterruptedError

    with pytest.raises(InterruptedError):
        trainer_of(data, world).run(folder, stop)


def sharded_rank(world: World, data: Path) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FLAP_SHARDING", "model")
        unbroken = trained(data, world, data / "unbroken")
        interrupt(data, world, data / "resumed")
        resumed = trained(data, world, data / "resumed")
        interrupt(data, world, data / "taken-over")
    if world.is_first:
        for name, weight in unbroken.items():
            assert torch.equal(weight, resumed[name]), name
        torch.save(unbroken, data / "unbroken.pt")


def resuming_rank(world: World, data: Path) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FLAP_SHARDING", "model")
        weights = trained(data, world, data / "alone")
    if world.is_first:
        torch.save(weights, data / "taken-over.pt")


@pytest.mark.slow
def test_sharded_training_resumes_to_the_bit_and_on_other_ranks(corpus: Corpus) -> None:
    data = project(corpus, epochs=4, dropout=0.0, changes=EVERYTHING).joinpath("data")
    on_ranks(2, sharded_rank, data)
    unbroken = torch.load(data / "unbroken.pt", weights_only=True)
    alone = World(0, 1, torch.device("cpu"))
    assert_close(trained(data, alone, data / "taken-over"), unbroken)
    interrupt(data, alone, data / "alone")
    on_ranks(4, resuming_rank, data)
    assert_close(torch.load(data / "taken-over.pt", weights_only=True), unbroken)


def both_ways(world: World, data: Path) -> None:
    for sharding in ("none", "model"):
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("FLAP_SHARDING", sharding)
            weights = trained(data, world, data / sharding)
        if world.is_first:
            torch.save(weights, data / f"{sharding}.pt")


@pytest.mark.parametrize(
    "changes",
    [
        pytest.param({"captions: both": "captions: none"}, id="without captions"),
        pytest.param(
            {"fusion: false": "fusion: true", "micro_batch: null": "micro_batch: 2"}, id="fusion"
        ),
    ],
)
def test_sharded_ranks_train_the_model_of_ddp(corpus: Corpus, changes: dict[str, str]) -> None:
    data = project(corpus, epochs=2, dropout=0.0, changes=changes).joinpath("data")
    on_ranks(2, both_ways, data)
    sharded, replicated = (
        torch.load(data / f"{sharding}.pt", weights_only=True) for sharding in ("model", "none")
    )
    assert_close(sharded, replicated)
    pd.testing.assert_frame_equal(history(data / "model"), history(data / "none"), rtol=1e-3)


def history(folder: Path) -> pd.DataFrame:
    return pd.read_csv(folder / HISTORY).drop(columns=list(MACHINE_COLUMNS))


@pytest.mark.slow
def test_the_published_model_is_that_of_ddp(corpus: Corpus) -> None:
    changes = EVERYTHING | {
        "keep: last": "keep: best",
        "gradient_checkpointing: false": "gradient_checkpointing: true",
        "learning_rate: 2.0e-3": "learning_rate: 2.0e-2",  # so that the last is not the best
    }
    folder = project(corpus, epochs=4, dropout=0.0, changes=changes)
    published = folder / "data/pretrain/model"
    weights, history = train(folder, processes=2)
    settings = (published / "config.json").read_text()
    sharded_weights, sharded_history = train(folder, 2, {"FLAP_SHARDING": "model"})
    pd.testing.assert_frame_equal(sharded_history, history, rtol=2e-3)
    assert_close(sharded_weights, weights)
    assert (published / "config.json").read_text() == settings
    load_flap(published)


def test_an_unknown_sharding_is_refused(corpus: Corpus, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FLAP_SHARDING", "all")
    data = project(corpus, epochs=1, dropout=0.0).joinpath("data")
    with pytest.raises(UserError, match="FLAP_SHARDING=all: expected none or model"):
        trainer_of(data, World(0, 1, torch.device("cpu")))


def assert_close(found: Weights, expected: Weights) -> None:
    assert found.keys() == expected.keys()
    for name, weight in expected.items():
        torch.testing.assert_close(found[name], weight, rtol=2e-3, atol=2e-4, msg=name)
