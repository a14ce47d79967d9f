"""A small corpus in tables, for tests of the stages that read them; an object store."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import fsspec
import numpy as np
import pytest
from hypothesis import settings

from flap.core.schemas import AUDIT, CAPTIONS, CLIPS, MELS, mel_bytes
from flap.core.shards import write_rows

settings.register_profile("flap", deadline=None)  # no test measures time
settings.load_profile("flap")

SOUNDS = ("Rain", "Bark", "Siren")
FRONT_END = {
    "sample_rate_hz": 16000,
    "n_mels": 32,
    "frame_ms": 25.0,
    "hop_ms": 10.0,
    "window": "hanning",
    "max_seconds": 60.0,
    "min_seconds": 0.1,
    "min_peak": 1e-4,
    "max_megabytes": 200.0,
}
SPLITS = ("train", "train", "train", "val", "test")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Modules with slow tests first, so that no worker is left alone with one at the end."""
    marked = (item for item in items if item.get_closest_marker("slow"))
    slow = {item.path for item in marked}
    items.sort(key=lambda item: item.path not in slow)


@dataclass(frozen=True)
class Corpus:
    """CLIPS, MELS, CAPTIONS and an empty AUDIT of the dataset `toy`.

    A clip's label is the band that is loud.
    """

    data: Path

    @property
    def clips(self) -> Path:
        return self.data / "sources"

    @property
    def mels(self) -> Path:
        return self.data / "audio"

    @property
    def captions(self) -> Path:
        return self.data / "captions"

    @property
    def audit(self) -> Path:
        return self.data / "audit"


@pytest.fixture
def corpus(tmp_path: Path) -> Corpus:
    return write_corpus(tmp_path / "data")


def write_corpus(data: Path) -> Corpus:
    made = Corpus(data)
    for shard in range(3):
        name = f"toy/shard-{shard:05d}.parquet"
        numbers = range(shard * 10, shard * 10 + 10)
        clips = [_clip(i) for i in numbers]
        write_rows(made.clips / name, clips, CLIPS, {})
        mels = [_mel(i) for i in numbers]
        write_rows(made.mels / name, mels, MELS, FRONT_END)
        enriched = [_caption(clip) for clip in clips if clip["split"] == "train"]
        write_rows(made.captions / name, enriched, CAPTIONS, {})
    write_rows(made.audit / "shard-00000.parquet", [], AUDIT, {})
    return made


def _clip(i: int) -> dict[str, object]:
    sound = SOUNDS[i % 3]
    return {
        "clip_id": f"toy/{i}",
        "dataset": "toy",
        "split": SPLITS[i % 5],
        "uri": f"{i}.wav",
        "offset": None,
        "n_bytes": None,
        "captions": [f"{sound} is heard.", f"The sound of {sound.lower()}, number {i}."],
        "labels": [sound, "No such class"],
        "duration_s": None,
        "licence": "",
        "source": "",
        "origin": "",
    }


def _mel(i: int) -> dict[str, object]:
    rng = np.random.default_rng(i)
    mel_TF = rng.normal(-8, 1, (30 + i, 32))
    mel_TF[:, i % 3 * 10 : i % 3 * 10 + 10] += 8
    return {
        "clip_id": f"toy/{i}",
        "n_frames": len(mel_TF),
        "mel": mel_bytes(mel_TF),
        "duration_s": len(mel_TF) / 100,
        "source_rate_hz": 16000,
        "channels": 1,
        "peak": 0.5,
        "loudness_lufs": None,
        "silence": 0.0,
        "clipping": 0.0,
        "sha256": f"{i}",
        "mel_xxh3": f"{i}",
    }


def _caption(clip: dict[str, object]) -> dict[str, object]:
    empty = {"string": "", "int32": 0, "float": 0.0}
    text = {column.name: empty.get(str(column.type)) for column in CAPTIONS.columns}
    kept = str(clip["clip_id"]).endswith(("0", "5"))
    numbers = {"n_words": 5, "tag_coverage": 1.0, "faithfulness": 1.0, "invented": 0.0}
    known = {"clip_id": clip["clip_id"], "tags": [], "kept": kept, "enriched": "Enriched."}
    return text | numbers | known


@pytest.fixture
def s3(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A bucket on an S3 server of our own."""
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://{host}:{port}")
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "test")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    fsspec.get_filesystem_class("s3").clear_instance_cache()  # of an earlier server
    bucket = fsspec.filesystem("s3")
    bucket.mkdir("corpora")
    yield "s3://corpora"
    bucket.rm("corpora", recursive=True)  # servers of one process share what they hold
    server.stop()
