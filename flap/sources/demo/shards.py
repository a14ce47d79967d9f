"""Adapter `demo`: a corpus of generated soundscapes, for runs without any download.

1. A clip is identified by its split and index. All random draws of a clip depend on (seed, split,
   index) alone, so clips do not depend on the size of the corpus or of shards, or on the order.
2. `draw_scene` draws the scene, `draw_captions` describes it, `render` makes the samples.
3. The samples are written in one of seven formats, at one of five sample rates, in mono or
   stereo. One clip in a hundred is broken on purpose, with a different fault each time. It is a
   row of CLIPS, and stage `audio` must reject it.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from flap.core.schemas import CLIPS, SPLITS
from flap.core.shards import Row, shard_name, write_rows
from flap.sources.config import DemoDataset
from flap.sources.demo.captions import draw_captions
from flap.sources.demo.catalogue import Catalogue, load_catalogue
from flap.sources.demo.encoding import BROKEN, FORMATS
from flap.sources.demo.mix import render
from flap.sources.demo.scene import Scene, draw_scene
from flap.sources.record import RECORDINGS_FOLDER

RATES_HZ = (16000, 22050, 32000, 44100, 48000)
STEREO_SHARE = 0.4
BROKEN_EVERY, BROKEN_FIRST = 100, 7
SOURCE, LICENCE = "FLAP demo, generated", "CC0-1.0"


@dataclass(frozen=True)
class Clip:
    """One clip before it is written; `recording` is None if the file shall be missing."""

    split: str
    index: int
    scene: Scene
    captions: tuple[str, ...]
    suffix: str
    recording: bytes | None

    @property
    def name(self) -> str:
        return f"{self.split}-{self.index:05d}"


@dataclass(frozen=True)
class DemoShards:
    """Writes one shard for each call; `out` is the folder where the dataset will be published."""

    dataset: str
    config: DemoDataset
    shard_clips: int
    out: Path

    @property
    def shards(self) -> list[Path]:
        """Names of the shards, clips in the order train, val, test."""
        return [Path(shard_name(i)) for i in range(-(-self.n_clips // self.shard_clips))]

    @property
    def n_clips(self) -> int:
        return sum(self._sizes().values())

    def __call__(self, shard: Path, target: Path) -> None:
        """Write the recordings of `shard` below the folder of `target`, then its table."""
        catalogue = load_catalogue(Path(self.config.path))
        folder = Path(RECORDINGS_FOLDER) / shard.stem
        (target.parent / folder).mkdir(parents=True, exist_ok=True)
        first = int(shard.stem.removeprefix("shard-")) * self.shard_clips
        rows = []
        for position in range(first, min(first + self.shard_clips, self.n_clips)):
            clip = make_clip(catalogue, self.config.seed, *self._slot(position))
            path = folder / f"{clip.name}{clip.suffix}"
            if clip.recording is not None:
                (target.parent / path).write_bytes(clip.recording)
            rows.append(self._row(clip, self.out / path, catalogue))
        write_rows(target, rows, CLIPS, self._provenance())

    def _sizes(self) -> dict[str, int]:
        return {split: getattr(self.config.clips, split) for split in SPLITS}

    def _slot(self, position: int) -> tuple[str, int]:
        """Split and index within it of the corpus's `position`-th clip."""
        for split, size in self._sizes().items():
            if position < size:
                return split, position
            position -= size
        raise AssertionError("position past the last clip")

    def _row(self, clip: Clip, uri: Path, catalogue: Catalogue) -> Row:
        labels = [catalogue.sounds[name].label for name in clip.scene.sounds]
        return {
            "clip_id": f"{self.dataset}/{clip.name}",
            "dataset": self.dataset,
            "split": clip.split,
            "uri": uri.as_posix(),
            "offset": None,
            "n_bytes": None,
            "captions": list(clip.captions),
            "labels": labels,
            "duration_s": clip.scene.duration_s,
            "licence": LICENCE,
            "source": SOURCE,
            "origin": "",
        }

    def _provenance(self) -> Mapping[str, Any]:
        return {"stage": "sources", "dataset": self.dataset, **self.config.model_dump()}


def make_clip(catalogue: Catalogue, seed: int, split: str, index: int) -> Clip:
    """The clip at `index` of `split`; equal arguments give equal clips."""
    rng = np.random.default_rng([seed, SPLITS.index(split), index])
    scene = draw_scene(rng, catalogue)
    captions = draw_captions(rng, scene, catalogue)
    rate_hz = int(rng.choice(RATES_HZ))
    channels = 2 if rng.random() < STEREO_SHARE else 1
    chosen = FORMATS[int(rng.choice(len(FORMATS), p=[format.share for format in FORMATS]))]
    samples = render(scene, catalogue, rng, rate_hz, channels)
    kind = broken_kind(split, index)
    suffix, encode = BROKEN[kind] if kind else (chosen.suffix, chosen.encode)
    recording = encode(samples, rate_hz) if encode else None
    return Clip(split, index, scene, tuple(captions), suffix, recording)


def broken_kind(split: str, index: int) -> str | None:
    """The fault of a clip, a key of `BROKEN`, None for a good clip; the faults take turns."""
    turn, position = divmod(index, BROKEN_EVERY)
    if position != BROKEN_FIRST:
        return None
    return list(BROKEN)[(turn + SPLITS.index(split)) % len(BROKEN)]
