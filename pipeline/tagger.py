"""Stage `tagger`: log-mels and labels, a released checkpoint, or both → a tagger and its mAP."""

import shutil

from flap.core.audioset import display_names
from flap.core.config import load_section
from flap.core.errors import UserError
from flap.core.metrics import write_metrics
from flap.core.shards import shard_paths
from flap.core.work import Work, fingerprint
from flap.model.config import EncoderConfig
from flap.sources.config import DatasetsConfig
from flap.tagger.config import TaggerConfig
from pipeline.stage import PARAMS, PathOption, run


def main(
    clips: PathOption, mels: PathOption, audit: PathOption, out: PathOption, metrics: PathOption
) -> None:
    """Import weights, fine-tune on the split train, measure mAP on the held-out split."""
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

    from flap.model.tagger import save_tagger  # torch loads after --help and errors
    from flap.tagger.build import build
    from flap.tagger.loop import mean_average_precision, predict, targets, train

    training = usable_clips(clips, mels, datasets, ["train"], dropped)
    holdout = usable_clips(clips, mels, datasets, [config.holdout_split])
    check_front_end(training, encoder.n_mels)
    classes = display_names()
    learned, truth = targets(training["labels"], classes), targets(holdout["labels"], classes)
    tagger, report = build(config, encoder, len(classes))
    print(f"tagger: {report or 'starts from scratch'}")
    if config.epochs:
        print(f"tagger: {len(training)} clips to learn from, {len(holdout)} held out")
        print(f"tagger: {len(dropped)} training clips left out by the audit")
        if learned.unknown:
            print(f"tagger: labels that are no AudioSet class, not learned: {learned.unknown}")
        for split, found in (("train", learned), (config.holdout_split, truth)):
            if not found.hot_CX.any():
                raise UserError(
                    f"{clips}: no clip of split {split} has a label that is an AudioSet class; "
                    "give labels to some recordings, add a dataset that has them, such as the "
                    "demo, or import a tagger: tagger.weights, and tagger.epochs: 0"
                )
        checkpoints = work.folder / "checkpoints"
        train(config, tagger, training, learned.hot_CX, checkpoints)
        shutil.rmtree(checkpoints)
    scores: dict[str, float] = {"clips": len(holdout), "classes": 0}
    if truth.hot_CX.any():
        scores = mean_average_precision(truth.hot_CX, predict(tagger, holdout))
        print(f"tagger: mAP {scores['mAP']:.3f} over {scores['classes']} classes")
    save_tagger(work.folder, tagger, classes)
    write_metrics(metrics, scores)
    work.publish()


if __name__ == "__main__":
    run(main)
