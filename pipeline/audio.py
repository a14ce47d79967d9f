"""Stage `audio`: CLIPS and recordings → MELS and REJECTS."""

from functools import partial

from flap.audio.config import AudioConfig
from flap.core.config import load_section
from flap.core.errors import UserError
from flap.core.shards import REJECTS_FOLDER, count_rows, shard_paths
from flap.core.work import Work, fingerprint, run_shards
from pipeline.stage import PARAMS, PathOption, print_counts, run


def main(clips: PathOption, out: PathOption) -> None:
    """Decode, resample and turn into log-mels every recording that the folder CLIPS names."""
    config = load_section(PARAMS, "audio", AudioConfig)
    shards = shard_paths(clips)
    work = Work.open(out, fingerprint("audio", [], config))

    from flap.audio.extract import extract_shard, recordings_of  # loads torch, after --help

    function = partial(extract_shard, config=config)
    run_shards(function, shards, work, f"audio {out.name}", made_from=recordings_of)
    heard, rejected = count_rows(work.folder), count_rows(work.folder / REJECTS_FOLDER)
    print_counts("audio", count_rows(clips), heard, rejected)
    if not heard:
        raise UserError(f"{clips}: every recording was rejected; see {work.folder}/_rejects")
    work.publish()


if __name__ == "__main__":
    run(main)
