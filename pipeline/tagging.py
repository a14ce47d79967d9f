"""Stage `tagging`: log-mels → TAGS, the sound events heard in every clip."""

from functools import partial

from flap.core.config import load_section
from flap.core.shards import count_rows, shard_paths
from flap.core.work import Work, fingerprint, run_shards
from flap.tagging.config import TaggingConfig
from pipeline.stage import PARAMS, PathOption, print_counts, run


def main(mels: PathOption, tagger: PathOption, out: PathOption) -> None:
    """Tag every clip of a dataset."""
    config = load_section(PARAMS, "tagging", TaggingConfig)
    shards = shard_paths(mels)
    work = Work.open(out, fingerprint("tagging", list(tagger.glob("*")), config))

    import torch  # after --help and errors in params.yaml

    from flap.tagging.tag import tag_shard

    function = partial(tag_shard, tagger=tagger, config=config)
    gpus = torch.cuda.device_count()  # processes would share a GPU, and so its memory
    run_shards(function, shards, work, f"tagging {out.name}", max_jobs=1 if gpus else None)
    print_counts("tagging", count_rows(mels), count_rows(work.folder), 0)
    work.publish()


if __name__ == "__main__":
    run(main)
