"""A pre-training run: the stage's input folders → a work folder with the trained model.

1. The fingerprint of inputs, parameters and code names the work folder. An unfinished run with the
   same fingerprint continues there.
2. All ranks join the process group and check that their fingerprints agree.
3. All ranks train. Then the first rank saves the model and its processor.
"""

import shutil
from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from flap.core.errors import UserError
from flap.core.shards import shard_paths
from flap.core.work import Work, fingerprint
from flap.mels.clips import check_front_end
from flap.mels.remote_rows import fetch_rows
from flap.mels.stubs import mel_versions
from flap.model.config import EncoderConfig, ModelConfig, WeightsConfig
from flap.pretrain.build import build_model
from flap.pretrain.config import PretrainConfig
from flap.pretrain.history import Row
from flap.pretrain.loop import CHECKPOINTS, HISTORY, Trainer
from flap.pretrain.pairs import training_clips, validation_clips
from flap.pretrain.trackers import RunInfo
from flap.pretrain.tracking import TrackerGroup, trackers_from_environment
from flap.processor.processor import build_processor
from flap.training.distributed import (
    World,
    first_rank_first,
    is_same_on_all_ranks,
    world_from_environment,
)

_VALIDATION = "validation.parquet"


@dataclass(frozen=True)
class Settings:
    """The sections of params.yaml that shape the model."""

    pretrain: PretrainConfig
    encoder: EncoderConfig
    model: ModelConfig

    def as_dict(self) -> dict[str, Any]:
        return {name: section.model_dump(mode="json") for name, section in vars(self).items()}


@dataclass(frozen=True)
class Inputs:
    """The input folders of the stage, and the corpora to read from them."""

    datasets: list[str]
    clips: Path
    mels: Path
    captions: Path
    tagger: Path
    dropped: Collection[str]  # ids of the training clips that the audit drops

    def fingerprint(self, settings: Settings) -> str:
        """Hash of inputs, parameters and code: of everything that shapes the model."""
        paths = [
            path
            for folder in (self.clips, self.captions)
            for dataset in self.datasets
            for path in shard_paths(folder / dataset)
        ]
        return fingerprint(
            "pretrain",
            [*paths, *self.tagger.glob("*")],
            settings.pretrain,
            settings.encoder,
            settings.model,
            dropped=sorted(self.dropped),
            mels=mel_versions(self.mels, self.datasets),
        )


def check_initial_weights(weights: str | WeightsConfig, out: Path) -> None:
    """Refuse to start from the model in `out`: DVC removes `out` before the stage runs.

    Raises:
        UserError: `weights` names `out`.
    """
    if isinstance(weights, WeightsConfig) and Path(weights.source).resolve() == out.resolve():
        raise UserError(
            f"pretrain.audio_weights: {weights.source} is the output of this stage and is removed "
            "before the stage runs; copy it to another folder and name the copy"
        )


def pretrain(settings: Settings, inputs: Inputs, out: Path) -> Work | None:
    """Train a model on the ranks that the environment describes; every rank calls this.

    Args:
        out: output folder of the stage, <data>/<stage>/<name>.

    Returns:
        On the first rank, the work to publish: its folder holds model, processor and history.
        None on the other ranks.

    Raises:
        UserError: settings and inputs do not fit, the ranks differ, or the loss is not finite.
    """
    identity = inputs.fingerprint(settings)
    trackers = trackers_from_environment()
    info = RunInfo(identity, out.parents[1] / ".tracking", settings.as_dict())
    with (
        world_from_environment() as world,
        TrackerGroup(trackers if world.is_first else [], info) as tracking,
    ):
        if not is_same_on_all_ranks(f"{identity} {out}", world):
            raise UserError(
                "pretrain: parameters, code, inputs or outputs differ between the nodes; start "
                "all nodes in the folder of one project, with the same FLAP_… variables"
            )
        work = Work.open(out, identity, follower=not world.is_first)
        _train(settings, inputs, work.folder, world, tracking.add)
    return work if world.is_first else None


def _train(
    settings: Settings,
    inputs: Inputs,
    folder: Path,
    world: World,
    on_row: Callable[[Row], None],
) -> None:
    """Train in `folder`, and save model and processor there."""
    config = settings.pretrain
    training = training_clips(
        inputs.clips,
        inputs.mels,
        inputs.captions,
        inputs.datasets,
        config.captions,
        inputs.dropped,
        enriched_share=config.enriched_share,
        seed=config.seed,
    )
    front_end = check_front_end(training, settings.encoder.n_mels)
    validation = validation_clips(inputs.clips, inputs.mels, inputs.datasets, config.captions)
    with first_rank_first(world):
        validation = fetch_rows(validation, folder / _VALIDATION)
    model, tokenizer, report = build_model(
        config, settings.encoder, settings.model, training, inputs.tagger
    )
    trainer = Trainer(config, model, tokenizer, training, validation, world)
    if world.is_first:
        pairs = trainer.order.pairs_per_epoch
        print(f"pretrain: {len(training)} clips, {pairs} pairs, {world.world_size} rank(s)")
        print(f"pretrain: the audit drops {len(inputs.dropped)} training clips")
        print(f"pretrain: {report or 'the audio encoder starts from scratch'}")
    trainer.run(folder, on_row)
    trained = trainer.full_model()
    if world.is_first:
        trained.save_pretrained(folder)
        build_processor(model, tokenizer, front_end).save_pretrained(folder)


def publish(work: Work, history: Path) -> None:
    """Publish the work of `pretrain`: the history to `history`, the model to the stage's output."""
    history.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(work.folder / HISTORY, history)
    for intermediate in (HISTORY, _VALIDATION):
        (work.folder / intermediate).unlink(missing_ok=True)
    shutil.rmtree(work.folder / CHECKPOINTS)
    work.publish()
