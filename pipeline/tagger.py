"""Stage `tagger`: log-mels and labels, a released checkpoint, or both → a tagger and its mAP."""

import shutil
from pathlib import Path

import typer

from flap.core.audioset import display_names
from flap.core.config import load_section
from flap.core.errors import UserError
from flap.core.metrics import write_metrics
from flap.core.shards import shard_paths
from flap.core.work import Work, fingerprint
from flap.model.config import EncoderConfig
from flap.sources.config import DatasetsConfig
from flap.tagger.config import TaggerConfig
from flap.tagger.labels import Targets, describe_unknown, make_targets
from pipeline.stage import PARAMS, PathOption, run


def main(
    clips: PathOption, mels: PathOption, audit: PathOption, out: PathOption, metrics: PathOption
) -> None:
    """Import weights, fine-tune on the split train, and measure mAP on the held-out split."""
    config = load_section(PARAMS, "tagger", TaggerConfig)
    encoder = load_section(PARAMS, "encoder", EncoderConfig)
    datasets = list(load_section(PARAMS, "datasets", DatasetsConfig).root)
    inputs = [
        path
        for folder in (clips, mels)
        for dataset in datasets
        for path in shard_paths(folder / dataset)
    ]

    from flap.mels.clips import check_front_end, dropped_clips, usable_clips

    dropped = dropped_clips(audit)
    work = Work.open(out, fingerprint("tagger", inputs, config, encoder, dropped=sorted(dropped)))

    from flap.model.tagger import save_tagger  # after --help and errors, for torch loads slowly
    from flap.tagger.build import build
    from flap.tagger.evaluate import mean_average_precision, predict
    from flap.tagger.train import train

    training = usable_clips(clips, mels, datasets, ["train"], dropped)
    holdout = usable_clips(clips, mels, datasets, [config.holdout_split])
    check_front_end(training, encoder.n_mels)
    classes = display_names()
    targets = make_targets(training["labels"], classes)
    truth = make_targets(holdout["labels"], classes)
    tagger, report = build(config, encoder, len(classes))
    typer.echo(f"tagger: {report or 'random initial weights'}")
    if config.epochs:
        typer.echo(f"tagger: {len(training)} training clips, {len(holdout)} held-out clips")
        typer.echo(f"tagger: the audit excludes {len(dropped)} training clips")
        if targets.unknown:
            unknown = describe_unknown(targets.unknown)
            typer.echo(f"tagger: labels that are no AudioSet class are not learned; {unknown}")
        _check_labels(clips, {"train": targets, config.holdout_split: truth})
        checkpoints = work.folder / "checkpoints"
        train(config, tagger, training, targets.hot_CX, checkpoints)
        shutil.rmtree(checkpoints)
    scores: dict[str, float] = {"clips": len(holdout), "classes": 0}
    if truth.hot_CX.any():
        scores = mean_average_precision(truth.hot_CX, predict(tagger, holdout))
        typer.echo(f"tagger: mAP {scores['mAP']:.3f} over {scores['classes']} classes")
    save_tagger(work.folder, tagger, classes)
    write_metrics(metrics, scores)
    work.publish()


def _check_labels(clips: Path, targets_of_split: dict[str, Targets]) -> None:
    for split, targets in targets_of_split.items():
        if not targets.hot_CX.any():
            raise UserError(
                f"{clips}: no clip of the split {split} has a label that is an AudioSet class; "
                "label some recordings, add a dataset with labels, such as the demo, or import a "
                "tagger by tagger.weights and set tagger.epochs to 0"
            )


if __name__ == "__main__":
    run(main)
