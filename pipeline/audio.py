"""Stage `audio`: CLIPS and recordings → MELS and REJECTS."""

from functools import partial

from flap.audio.config import AudioConfig
from flap.core.config import load_section
from flap.core.errors import UserError
from flap.core.shards import REJECTS_FOLDER, count_rows, shard_paths
from flap.core.work import Work, fingerprint, run_shards
from pipeline.stage import PARAMS, PathOption, print_counts, run


def main(clips: PathOption, out: PathOption) -> None:
    """Decode and resample every recording in the folder CLIPS, and compute its log-mel."""
    config = load_section(PARAMS, "audio", AudioConfig)
    shards = shard_paths(clips)
    work = Work.open(out, fingerprint("audio", [], config))

    from flap.audio.extract import extract_shard, recording_versions  # loads torch, after --help

    function = partial(extract_shard, config=config)
    run_shards(function, shards, work, f"audio {out.name}", made_from=recording_versions)
    n_mels, n_rejects = count_rows(work.folder), count_rows(work.folder / REJECTS_FOLDER)
    print_counts("audio", count_rows(clips), n_mels, n_rejects)
    if not n_mels:
        rejects = work.folder / REJECTS_FOLDER
        raise UserError(f"{clips}: every recording was rejected; {rejects} has the reasons")
    work.publish()


if __name__ == "__main__":
    run(main)
