"""One CLIPS shard → one MELS shard and one REJECTS shard."""

import hashlib
import json
from pathlib import Path

import numpy as np
import torch
import xxhash

from flap.audio import levels
from flap.audio.config import AudioConfig
from flap.audio.decode import Recording, decode
from flap.audio.fbank import log_mel
from flap.audio.read import read_recording, recording_version
from flap.audio.rejected import Rejected
from flap.audio.resample import RESAMPLER, resample
from flap.core.schemas import CLIPS, MELS, mel_bytes
from flap.core.shards import REJECTS_FOLDER, Row, open_rows, read_table, write_rejects

_COLUMNS = ["clip_id", "split", "uri", "offset", "n_bytes"]


def extract_shard(clips: Path, target: Path, config: AudioConfig) -> None:
    """Write `target` (MELS) and `_rejects/<name of target>`; every row of `clips` ends in one.

    Memory holds one row group of log-mels and one recording.

    Raises:
        OSError: the disk or the network failed; no row is rejected for such a failure.
    """
    torch.set_num_threads(1)  # `run_shards` starts one process for each core
    rejects: list[Row] = []
    front_end = config.model_dump() | {"resampler": RESAMPLER, "mel": "natural log, float16"}
    rows = read_table(clips, CLIPS, _COLUMNS).to_pylist()
    with open_rows(target, MELS, front_end) as writer:
        for row in rows:
            clip_id = {"clip_id": row["clip_id"]}
            try:
                writer.append(clip_id | extract(row["uri"], row["offset"], row["n_bytes"], config))
            except Rejected as error:
                why = {"stage": "audio", "reason": error.reason, "detail": error.detail}
                rejects.append(clip_id | {"split": row["split"]} | why)
        rejects_path = target.parent / REJECTS_FOLDER / target.name
        write_rejects(rejects_path, rejects, {"stage": "audio"} | front_end)


def recording_versions(clips: Path) -> str:
    """The rows of a CLIPS shard and the versions of their recordings, as JSON.

    MELS of the shard depend on this text, on the parameters and on the code. No recording is
    read.
    """
    rows = read_table(clips, CLIPS, _COLUMNS).to_pylist()
    versions = {uri: recording_version(uri) for uri in {row["uri"] for row in rows}}
    return json.dumps([[*row.values(), versions[row["uri"]]] for row in rows])


def extract(uri: str, offset: int | None, n_bytes: int | None, config: AudioConfig) -> Row:
    """All MELS columns of one recording except clip_id.

    Args:
        uri, offset, n_bytes: location of the recording's bytes, see `read_recording`.

    Raises:
        Rejected: the recording cannot be used.
        OSError: the disk or the network failed.
    """
    data = read_recording(uri, offset, n_bytes, config.max_bytes)
    recording = decode(data, config.max_seconds)
    _check_usable(recording, config)
    samples = resample(recording.samples, recording.rate_hz, config.sample_rate_hz)
    mel = mel_bytes(_finite_log_mel(samples, config))
    return {
        "n_frames": len(mel) // np.dtype(np.float16).itemsize // config.n_mels,
        "mel": mel,
        "duration_s": recording.duration_s,
        "source_rate_hz": recording.rate_hz,
        "channels": recording.channels,
        "peak": recording.peak,
        "loudness_lufs": levels.loudness_lufs(samples, config.sample_rate_hz),
        "silence": levels.silence(samples, config),
        "clipping": recording.clipping,
        "sha256": hashlib.sha256(data).hexdigest(),
        "mel_xxh3": xxhash.xxh3_128_hexdigest(mel),
    }


def _check_usable(recording: Recording, config: AudioConfig) -> None:
    """
    Raises:
        Rejected: the recording is too short or too quiet.
    """
    if recording.duration_s < config.min_seconds:
        found = f"{recording.duration_s:.3f} s"
        raise Rejected("too_short", f"{found}, at least {config.min_seconds} s")
    if recording.peak < config.min_peak:
        raise Rejected("silent", f"peak {recording.peak:.2g}, at least {config.min_peak}")


def _finite_log_mel(samples: np.ndarray, config: AudioConfig) -> np.ndarray:
    """Log-mel (n_frames, n_mels), float16."""
    mel_TF = log_mel(samples, config)
    if not np.isfinite(mel_TF).all():  # samples above about 1e19 have infinite power in float32
        raise Rejected("non_finite", "samples are too large: their power exceeds float32")
    return torch.from_numpy(mel_TF).half().numpy()  # five times as fast as numpy's astype
