"""One CLIPS shard → one MELS shard and its rejects."""

import hashlib
from pathlib import Path

import numpy as np
import torch

from flap.audio.config import AudioConfig
from flap.audio.decode import Rejected, decode
from flap.audio.fbank import RESAMPLER, log_mel
from flap.schemas import CLIPS, MELS, mel_bytes
from flap.shards import REJECTS_FOLDER, Row, read_table, write_rejects, write_rows

_ROW_GROUP_ROWS = 32  # about 8 MB of 10-second clips: what a shuffled reader can afford


def extract_shard(clips: Path, target: Path, config: AudioConfig) -> None:
    """Write `target` (MELS) and `_rejects/<same name>` beside it; every row ends in one."""
    torch.set_num_threads(1)  # one process a core does the parallel work
    mels: list[Row] = []
    rejects: list[Row] = []
    for row in read_table(clips, CLIPS, ["clip_id", "uri"]).to_pylist():
        try:
            mels.append({"clip_id": row["clip_id"]} | extract(Path(row["uri"]), config))
        except Rejected as error:
            rejects.append(
                {
                    "clip_id": row["clip_id"],
                    "stage": "audio",
                    "reason": error.reason,
                    "detail": error.detail,
                }
            )
    front_end = config.model_dump() | {"resampler": RESAMPLER, "mel": "natural log, float16"}
    write_rejects(
        target.parent / REJECTS_FOLDER / target.name, rejects, {"stage": "audio"} | front_end
    )
    write_rows(target, mels, MELS, front_end, row_group_rows=_ROW_GROUP_ROWS)


def extract(path: Path, config: AudioConfig) -> Row:
    """The MELS columns of one recording, but for its clip_id.

    Raises:
        Rejected: with one of the closed set of reasons.
    """
    try:
        data = path.read_bytes()
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError) as error:
        raise Rejected("missing", f"{path}: {error.strerror}") from error
    except PermissionError as error:
        raise Rejected("unreadable", f"{path}: {error.strerror}") from error
    recording = decode(data)
    duration_s = len(recording.samples) / recording.rate_hz
    if duration_s < config.min_seconds:
        raise Rejected("too_short", f"{duration_s:.3f} s, at least {config.min_seconds} s")
    peak = float(np.abs(recording.samples).max())
    if peak < config.min_peak:
        raise Rejected("silent", f"peak {peak:.2g}, at least {config.min_peak}")
    mel_TF = log_mel(recording, config)
    return {
        "n_frames": len(mel_TF),
        "mel": mel_bytes(mel_TF),
        "duration_s": duration_s,
        "source_rate_hz": recording.rate_hz,
        "channels": recording.channels,
        "peak": peak,
        "sha256": hashlib.sha256(data).hexdigest(),
    }
