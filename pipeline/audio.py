"""Stage `audio`: CLIPS and recordings → MELS and REJECTS."""

from functools import partial

from flap.audio.config import AudioConfig
from flap.audio.extract import extract_shard
from flap.config import load_section
from flap.shards import REJECTS_FOLDER, Work, count_rows, fingerprint, run_shards, shard_paths
from pipeline.stage import PARAMS, PathOption, print_counts, run


def main(clips: PathOption, out: PathOption) -> None:
    """Decode, resample and turn into log-mels every recording that the folder CLIPS names."""
    config = load_section(PARAMS, "audio", AudioConfig)
    shards = shard_paths(clips)
    work = Work.open(out, fingerprint(shards, config))
    run_shards(partial(extract_shard, config=config), shards, work, f"audio {out.name}")
    work.publish()
    print_counts("audio", count_rows(clips), count_rows(out), count_rows(out / REJECTS_FOLDER))


if __name__ == "__main__":
    run(main)
