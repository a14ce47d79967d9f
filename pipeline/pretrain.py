"""Stage `pretrain`: log-mels, captions and the tagger's encoder → a FLAP model."""

from flap.core.config import load_section
from flap.mels.stubs import mels_from_environment
from flap.model.config import EncoderConfig, ModelConfig
from flap.pretrain.config import PretrainConfig
from flap.sources.config import DatasetsConfig
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
    """Train FLAP. `pipeline.launch` starts this on each rank."""
    config = load_section(PARAMS, "pretrain", PretrainConfig)
    encoder = load_section(PARAMS, "encoder", EncoderConfig)
    model = load_section(PARAMS, "model", ModelConfig)
    datasets = list(load_section(PARAMS, "datasets", DatasetsConfig).root)

    from flap.mels.clips import dropped_clips
    from flap.pretrain.run import Inputs, Settings, check_initial_weights, pretrain, publish

    check_initial_weights(config.audio_weights, out)
    mels = mels_from_environment(mels, datasets)
    inputs = Inputs(datasets, clips, mels, captions, tagger, dropped_clips(audit))
    work = pretrain(Settings(config, encoder, model), inputs, out)
    if work is not None:
        publish(work, history)


if __name__ == "__main__":
    run(main)
