"""Stage `tagger`: log-mels and labels → a sound-event tagger and its mAP."""

from flap.audioset import display_names
from flap.config import load_section
from flap.errors import UserError
from flap.model.config import EncoderConfig
from flap.shards import Work, fingerprint, shard_paths
from flap.sources.config import DatasetsConfig
from flap.tagger.config import TaggerConfig
from pipeline.stage import PARAMS, PathOption, run, write_metrics


def main(clips: PathOption, mels: PathOption, out: PathOption, metrics: PathOption) -> None:
    """Fine-tune the tagger on the split train; measure mAP on the held-out split."""
    config = load_section(PARAMS, "tagger", TaggerConfig)
    encoder = load_section(PARAMS, "encoder", EncoderConfig)
    datasets = list(load_section(PARAMS, "datasets", DatasetsConfig).root)
    inputs = [
        path
        for folder in (clips, mels)
        for dataset in datasets
        for path in shard_paths(folder / dataset)
    ]
    work = Work.open(out, fingerprint(inputs, config, encoder))

    import torch  # after --help and errors in params.yaml

    from flap.clips import check_front_end, usable_clips
    from flap.model.device import default_device
    from flap.model.tagger import Tagger, save_tagger
    from flap.tagger.loop import mean_average_precision, predict, targets, train

    training = usable_clips(clips, mels, datasets, ["train"])
    holdout = usable_clips(clips, mels, datasets, [config.holdout_split])
    classes = display_names()
    check_front_end(training, encoder.n_mels)
    learned, truth = targets(training["labels"], classes), targets(holdout["labels"], classes)
    print(f"tagger: {len(training)} clips to learn from, {len(holdout)} held out")
    if learned.unknown:
        print(f"tagger: labels that are no AudioSet class, not learned: {learned.unknown}")
    for split, found in (("train", learned), (config.holdout_split, truth)):
        if not found.hot_CX.any():
            raise UserError(
                f"{clips}: no clip of split {split} has a label that is an AudioSet class; give "
                "labels to some recordings, or add a dataset that has them, such as the demo"
            )
    torch.manual_seed(config.seed)
    tagger = Tagger(encoder, len(classes)).to(default_device())
    checkpoint = work.folder / "checkpoint.pt"
    train(config, tagger, training, learned.hot_CX, checkpoint)
    scores = mean_average_precision(truth.hot_CX, predict(tagger, holdout))
    save_tagger(work.folder, tagger, classes)
    checkpoint.unlink()
    write_metrics(metrics, scores)
    work.publish()
    print(f"tagger: mAP {scores['mAP']:.3f} over {scores['classes']} classes")


if __name__ == "__main__":
    run(main)
