"""Stage `pretrain`: log-mels, captions and the tagger's encoder → a FLAP model."""

import shutil
from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import BaseModel

from flap.core.config import load_section
from flap.core.errors import UserError
from flap.core.shards import shard_paths
from flap.core.work import Work, fingerprint
from flap.mels.stubs import mel_versions, mels_from_environment
from flap.model.config import EncoderConfig, ModelConfig, WeightsConfig
from flap.pretrain.config import PretrainConfig
from flap.sources.config import DatasetsConfig
from pipeline.stage import PARAMS, PathOption, run

if TYPE_CHECKING:
    from flap.training.distributed import Ranks

VALIDATION = "validation.parquet"


@dataclass(frozen=True)
class Inputs:
    """The folders that the stage reads, and the corpora in them."""

    datasets: list[str]
    clips: Path
    mels: Path
    captions: Path
    tagger: Path
    dropped: Collection[str]  # clips that the audit leaves out

    def fingerprint(self, *sections: BaseModel) -> str:
        """Of all that shapes the model."""
        paths = [
            path
            for folder in (self.clips, self.captions)
            for dataset in self.datasets
            for path in shard_paths(folder / dataset)
        ]
        return fingerprint(
            "pretrain",
            [*paths, *self.tagger.glob("*")],
            *sections,
            dropped=sorted(self.dropped),
            mels=mel_versions(self.mels, self.datasets),
        )


def main(
    clips: PathOption,
    mels: PathOption,
    captions: PathOption,
    audit: PathOption,
    tagger: PathOption,
    out: PathOption,
    history: PathOption,
) -> None:
    """Train FLAP; started by `pipeline.launch` on as many ranks as there are."""
    config = load_section(PARAMS, "pretrain", PretrainConfig)
    encoder = load_section(PARAMS, "encoder", EncoderConfig)
    model_config = load_section(PARAMS, "model", ModelConfig)
    datasets = list(load_section(PARAMS, "datasets", DatasetsConfig).root)
    _check_start(config, out)
    mels = mels_from_environment(mels, datasets)

    from flap.mels.clips import dropped_clips

    inputs = Inputs(datasets, clips, mels, captions, tagger, dropped_clips(audit))
    identity = inputs.fingerprint(config, encoder, model_config)

    from flap.pretrain.trackers import Run
    from flap.pretrain.tracking import Tracking, trackers_from_environment

    trackers = trackers_from_environment()
    sections = {"pretrain": config, "model": model_config, "encoder": encoder}
    parameters = {name: section.model_dump(mode="json") for name, section in sections.items()}
    tracked = Run(identity, out.parents[1] / ".tracking", parameters)

    from flap.training.distributed import (  # torch loads after errors
        is_same_on_all_ranks,
        ranks_from_environment,
    )

    with (
        ranks_from_environment() as ranks,
        Tracking(trackers if ranks.is_first else [], tracked) as tracking,
    ):
        if not is_same_on_all_ranks(f"{identity} {out}", ranks):
            raise UserError(
                "pretrain: the nodes run with other parameters, code, inputs or outputs; start "
                "all in one project's folder, with the same FLAP_… variables"
            )
        work = Work.open(out, identity, follower=not ranks.is_first)
        _train(inputs, config, encoder, model_config, work.folder, ranks, tracking.add)
        if ranks.is_first:
            _publish(work, history)


def _check_start(config: PretrainConfig, out: Path) -> None:
    """DVC removes `out` before the stage runs, so a model there cannot be what it starts from."""
    weights = config.audio_weights
    if isinstance(weights, WeightsConfig) and Path(weights.source).resolve() == out.resolve():
        raise UserError(
            f"pretrain.audio_weights: {weights.source} is what this stage makes, and removed "
            "before it runs; copy it elsewhere and name the copy"
        )


def _train(
    inputs: Inputs,
    config: PretrainConfig,
    encoder: EncoderConfig,
    model_config: ModelConfig,
    folder: Path,
    ranks: "Ranks",
    tell: Callable[[dict[str, str]], None],
) -> None:
    """Model and processor into `folder`, where unfinished training stands."""
    from flap.mels.clips import check_front_end
    from flap.mels.remote_rows import fetch_rows
    from flap.pretrain.build import build
    from flap.pretrain.loop import Trainer
    from flap.pretrain.pairs import training_clips, validation_clips
    from flap.processor.processor import processor_of
    from flap.training.distributed import first_rank_first

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
    front_end = check_front_end(training, encoder.n_mels)
    validation = validation_clips(inputs.clips, inputs.mels, inputs.datasets, config.captions)
    with first_rank_first(ranks):
        validation = fetch_rows(validation, folder / VALIDATION)
    model, tokenizer, report = build(config, encoder, model_config, training, inputs.tagger)
    trainer = Trainer(config, model, tokenizer, training, validation, ranks)
    if ranks.is_first:
        pairs = trainer.order.pairs_per_epoch
        print(f"pretrain: {len(training)} clips, {pairs} pairs, {ranks.world_size} rank(s)")
        print(f"pretrain: {len(inputs.dropped)} training clips left out by the audit")
        print(f"pretrain: {report or 'the audio encoder starts from scratch'}")
    trainer.run(folder, tell)
    trained = trainer.whole()
    if ranks.is_first:
        trained.save_pretrained(folder)
        processor_of(model, tokenizer, front_end).save_pretrained(folder)


def _publish(work: Work, history: Path) -> None:
    """The model's folder as the stage's output, without what was needed on the way."""
    from flap.pretrain.loop import CHECKPOINTS, HISTORY

    history.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(work.folder / HISTORY, history)
    for passed in (HISTORY, VALIDATION):
        (work.folder / passed).unlink(missing_ok=True)
    shutil.rmtree(work.folder / CHECKPOINTS)
    work.publish()


if __name__ == "__main__":
    run(main)
