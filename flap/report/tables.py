"""Tables of the stages → the facts about each dataset; None for a stage that has not run."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from flap.core.schemas import CLIPS, MELS, REJECTS, SPLITS, TAGS, TableSpec
from flap.core.shards import REJECTS_FOLDER, count_rows, read_folder, read_table
from flap.report.captions import CaptionSummary, read_captions
from flap.report.config import ReportConfig
from flap.report.levels import COLUMNS as LEVELS

EXAMPLES = 3
_SECONDS_PER_HOUR = 3600


@dataclass(frozen=True)
class Count:
    """Rows through one stage; they add up unless the stage ran without the one before it."""

    stage: str
    rows_in: int
    rows_out: int
    rejected: int

    @property
    def adds_up(self) -> bool:
        return self.rows_in == self.rows_out + self.rejected


@dataclass(frozen=True)
class Reason:
    """The rows that one stage rejected for one reason."""

    stage: str
    reason: str
    rows: int
    examples: list[tuple[str, str]]  # (clip, detail) of the first few


@dataclass(frozen=True)
class Dataset:
    """The facts about one dataset."""

    name: str
    splits: list[tuple[str, int]] | None
    licences: list[tuple[str, int]] | None  # recordings by licence, '' if the corpus names none
    counts: list[Count]
    rejects: list[Reason]
    audio: pd.DataFrame | None  # MELS without the log-mels
    tags: list[tuple[str, int]] | None
    captions: CaptionSummary | None

    @property
    def rates(self) -> list[tuple[str, int]]:
        return self._audio_values("source_rate_hz")

    @property
    def channels(self) -> list[tuple[str, int]]:
        return self._audio_values("channels")

    @property
    def hours(self) -> float | None:
        """Total duration of the recordings that could be decoded."""
        if self.audio is None:
            return None
        return float(self.audio["duration_s"].sum()) / _SECONDS_PER_HOUR

    def _audio_values(self, column: str) -> list[tuple[str, int]]:
        assert self.audio is not None
        found = self.audio[column].value_counts().sort_index()
        return [(f"{value:,}", int(rows)) for value, rows in found.items()]

    def count(self, stage: str) -> Count | None:
        return next((count for count in self.counts if count.stage == stage), None)


def read_dataset(data: Path, metrics: Path, name: str, config: ReportConfig) -> Dataset:
    """Read what the stages `sources`, `audio`, `tagging` and `captions` wrote for one dataset."""
    sources, audio, tagging, captions = (
        data / stage / name for stage in ("sources", "audio", "tagging", "captions")
    )
    clips = _read(sources, CLIPS, ["split", "licence"])
    tags = _read(tagging, TAGS, ["labels"])
    enriched = read_captions(captions, metrics / "captions" / f"{name}.json", config)
    return Dataset(
        name=name,
        splits=None if clips is None else _by_split(clips),
        licences=None if clips is None else _counted(Counter(clips["licence"].str.strip())),
        counts=_counts(sources, audio, tagging, enriched),
        rejects=[*_rejects(sources), *_rejects(audio)],
        audio=_read(audio, MELS, ["duration_s", "source_rate_hz", "channels", *LEVELS]),
        tags=None if tags is None else _counted(Counter(tags["labels"].explode().dropna())),
        captions=enriched,
    )


def _read(folder: Path, spec: TableSpec, columns: Sequence[str]) -> pd.DataFrame | None:
    return read_folder(folder, spec, columns) if count_rows(folder) else None


def _counted(counter: "Counter[str]") -> list[tuple[str, int]]:
    """Most frequent first, ties by name, so that the page has the same bytes each time."""
    return sorted(counter.items(), key=lambda item: (-item[1], item[0]))


def _by_split(clips: pd.DataFrame) -> list[tuple[str, int]]:
    found = Counter(clips["split"])
    return [(split, found[split]) for split in SPLITS if split in found]


def _counts(
    sources: Path, audio: Path, tagging: Path, captions: CaptionSummary | None
) -> list[Count]:
    counts = []
    if n_sources := count_rows(sources):
        rejected = count_rows(sources / REJECTS_FOLDER)
        counts.append(Count("sources", n_sources + rejected, n_sources, rejected))
    if n_audio := count_rows(audio):
        rejected = count_rows(audio / REJECTS_FOLDER)
        counts.append(Count("audio", n_sources, n_audio, rejected))
    if n_tagging := count_rows(tagging):
        counts.append(Count("tagging", n_audio, n_tagging, 0))
    if captions:
        rejected = captions.rows - captions.kept
        counts.append(Count("captions", captions.rows, captions.kept, rejected))
    return counts


def _rejects(stage_folder: Path) -> list[Reason]:
    paths = sorted((stage_folder / REJECTS_FOLDER).glob("shard-*.parquet"))
    if not paths:
        return []
    rows = pd.concat([read_table(path, REJECTS).to_pandas() for path in paths])
    return [
        Reason(str(stage), str(reason), len(group), _examples(group))
        for (stage, reason), group in rows.groupby(["stage", "reason"], sort=True)
    ]


def _examples(group: pd.DataFrame) -> list[tuple[str, str]]:
    return list(group[["clip_id", "detail"]].head(EXAMPLES).itertuples(index=False, name=None))
