"""Stage `tagging`: log-mels → TAGS, the sound events detected in each clip."""

from functools import partial

from flap.core.config import load_section
from flap.core.shards import count_rows, shard_paths
from flap.core.work import Work, fingerprint, run_shards
from flap.tagging.config import TaggingConfig
from pipeline.stage import PARAMS, PathOption, print_counts, run


def main(mels: PathOption, tagger: PathOption, out: PathOption) -> None:
    """Tag all clips of a dataset."""
    config = load_section(PARAMS, "tagging", TaggingConfig)
    shards = shard_paths(mels)
    work = Work.open(out, fingerprint("tagging", list(tagger.glob("*")), config))

    import torch  # after --help and errors in params.yaml, for torch loads slowly

    from flap.tagging.tag import tag_shard

    function = partial(tag_shard, tagger=tagger, config=config)
    # With a GPU one process: several would share its memory.
    max_jobs = 1 if torch.cuda.device_count() else None
    run_shards(function, shards, work, f"tagging {out.name}", max_jobs=max_jobs)
    print_counts("tagging", count_rows(mels), count_rows(work.folder), 0)
    work.publish()


if __name__ == "__main__":
    run(main)
