"""Stage `pretrain`: log-mels, captions and the tagger's encoder → a FLAP model."""

import shutil
from pathlib import Path

from flap.config import load_section
from flap.errors import UserError
from flap.model.config import EncoderConfig, ModelConfig, WeightsConfig
from flap.pretrain.config import PretrainConfig
from flap.shards import shard_paths
from flap.sources.config import DatasetsConfig
from flap.work import Work, fingerprint
from pipeline.stage import PARAMS, PathOption, run


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
    weights = config.audio_weights
    if isinstance(weights, WeightsConfig) and Path(weights.source).resolve() == out.resolve():
        raise UserError(
            f"pretrain.audio_weights: {weights.source} is what this stage makes, and removed "
            "before it runs; copy it elsewhere and name the copy"
        )
    inputs = [
        path
        for folder in (clips, mels, captions)
        for dataset in datasets
        for path in shard_paths(folder / dataset)
    ]

    from flap.clips import check_front_end, dropped_clips, usable_clips

    dropped = dropped_clips(audit)
    inputs += tagger.glob("*")
    identity = fingerprint(inputs, config, encoder, model_config, dropped=sorted(dropped))

    from flap.pretrain.trackers import Run
    from flap.pretrain.tracking import Tracking, trackers_from_environment

    trackers = trackers_from_environment()
    sections = {"pretrain": config, "model": model_config, "encoder": encoder}
    parameters = {name: section.model_dump(mode="json") for name, section in sections.items()}
    tracked = Run(identity, out.parents[1] / ".tracking", parameters)

    from flap.pretrain.build import build  # torch loads after --help and errors
    from flap.pretrain.loop import CHECKPOINTS, HISTORY, Trainer
    from flap.pretrain.pairs import training_clips
    from flap.processor.processor import processor_of
    from flap.training.distributed import ranks_from_environment

    training = training_clips(
        clips,
        mels,
        captions,
        datasets,
        config.captions,
        dropped,
        enriched_share=config.enriched_share,
        seed=config.seed,
    )
    validation = usable_clips(clips, mels, datasets, ["val"])
    front_end = check_front_end(training, encoder.n_mels)
    with (
        ranks_from_environment() as ranks,
        Tracking(trackers if ranks.is_first else [], tracked) as tracking,
    ):
        work = Work.open(out, identity, follower=not ranks.is_first)
        model, tokenizer, report = build(config, encoder, model_config, training, tagger)
        trainer = Trainer(config, model, tokenizer, training, validation, ranks)
        if ranks.is_first:
            pairs = trainer.order.pairs_per_epoch
            print(f"pretrain: {len(training)} clips, {pairs} pairs, {ranks.world_size} rank(s)")
            print(f"pretrain: {len(dropped)} training clips left out by the audit")
            print(f"pretrain: {report or 'the audio encoder starts from scratch'}")
        trainer.run(work.folder, tracking.add)
        trained = trainer.whole()
        if ranks.is_first:
            trained.save_pretrained(work.folder)
            processor_of(model, tokenizer, front_end).save_pretrained(work.folder)
            history.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(work.folder / HISTORY, history)
            (work.folder / HISTORY).unlink()
            shutil.rmtree(work.folder / CHECKPOINTS)
            work.publish()


if __name__ == "__main__":
    run(main)
