"""Sections `datasets` and `sources` of params.yaml."""

import math
from typing import Annotated, Literal

from pydantic import ConfigDict, Field, NonNegativeInt, PositiveInt, RootModel, model_validator

from flap.core.config import Section
from flap.core.schemas import Split

Fraction = Annotated[float, Field(ge=0.0, le=1.0)]


class SplitClips(Section):
    """Clips to generate for each split."""

    train: PositiveInt
    val: NonNegativeInt
    test: NonNegativeInt


class SplitFractions(Section):
    """Share of the clips that each split gets where the corpus names none."""

    train: Fraction
    val: Fraction
    test: Fraction

    @model_validator(mode="after")
    def _sum_to_one(self) -> "SplitFractions":
        total = self.train + self.val + self.test
        if not math.isclose(total, 1.0, abs_tol=1e-6):
            raise ValueError(f"train, val and test must sum to 1, they sum to {total:g}")
        return self


class DrawnSplits(Section):
    """Splits by a hash of the seed and of each clip, where the corpus names none."""

    seed: NonNegativeInt
    fractions: SplitFractions


class DemoDataset(Section):
    """Soundscapes made by rule (`flap.sources.demo`)."""

    adapter: Literal["demo"]
    path: str
    """Catalogue of sounds, from the project's root."""
    watch: str
    clips: SplitClips
    seed: NonNegativeInt


class CorpusDataset(Section):
    """What every corpus that is read has."""

    path: str
    """Its folder, from the project's root, or an fsspec URL (s3://, gs://, hf://)."""
    watch: str
    """What DVC watches for changes: the folder; where it is remote or too large to hash, a small
    local file that changes with it."""
    captions: Literal["required", "optional"]
    """Whether a recording without any caption is rejected, or kept for tagging and for training
    by reconstruction alone."""


class FolderDataset(CorpusDataset):
    """A folder of recordings with one CSV or Parquet table (`flap.sources.folder`)."""

    adapter: Literal["folder"]
    splits: DrawnSplits
    """Used where the table has no column `split`."""


class AudioCapsDataset(CorpusDataset):
    """AudioCaps' CSVs and a folder of its excerpts (`flap.sources.audiocaps`)."""

    adapter: Literal["audiocaps"]


class ClothoDataset(CorpusDataset):
    """Clotho v2.1 as it is published (`flap.sources.clotho`)."""

    adapter: Literal["clotho"]


class WavCapsDataset(CorpusDataset):
    """One part of WavCaps: its JSON and a folder of recordings (`flap.sources.wavcaps`)."""

    adapter: Literal["wavcaps"]
    table: str
    """The part's JSON, in the corpus's folder."""
    blacklist: str | None
    """WavCaps' JSON of the clips to leave out, in the corpus's folder."""


class TarsDataset(CorpusDataset):
    """Webdataset tars, as LAION-Audio-630K and LS-CLAP's (`flap.sources.tars`)."""

    adapter: Literal["tars"]
    splits: dict[str, Split]
    """Folder of tars → split."""


class Folds(Section):
    """Splits by the number that ESC-50 and its like give each clip; other folds are train."""

    val: list[int]
    test: list[int]

    @model_validator(mode="after")
    def _disjoint(self) -> "Folds":
        if set(self.val) & set(self.test):
            raise ValueError("a fold cannot be both val and test")
        return self


class LabelledDataset(CorpusDataset):
    """Recordings sorted by label, as ESC-50 (`flap.sources.labelled`)."""

    adapter: Literal["labelled"]
    splits: Folds | DrawnSplits
    caption: Annotated[str, Field(pattern=r"\{label\}")] | None
    """A caption for clips that have none, such as "The sound of {label}."; null: none."""


Column = Literal[
    "audio",
    "name",
    "captions",
    "labels",
    "licence",
    "source",
    "duration_s",
    "freesound_id",
    "youtube_id",
]


class HuggingFaceDataset(CorpusDataset):
    """Anything that the library `datasets` loads (`flap.sources.huggingface`)."""

    adapter: Literal["huggingface"]
    revision: str | None
    configuration: str | None
    splits: dict[str, Split]
    """The data set's split → ours; others are left out."""
    columns: dict[Column, str]
    """Our name → the column; `audio` is a must."""

    @model_validator(mode="after")
    def _has_audio(self) -> "HuggingFaceDataset":
        if "audio" not in self.columns:
            raise ValueError("columns must say which one is `audio`")
        return self


DatasetName = Annotated[str, Field(pattern=r"^[a-z0-9-]+$")]
Corpus = (
    FolderDataset
    | AudioCapsDataset
    | ClothoDataset
    | WavCapsDataset
    | TarsDataset
    | LabelledDataset
    | HuggingFaceDataset
)
Dataset = Annotated[DemoDataset | Corpus, Field(discriminator="adapter")]


class DatasetsConfig(RootModel[dict[DatasetName, Dataset]]):
    """Every corpus by name; names stand in paths, so a-z, 0-9 and dashes only."""

    model_config = ConfigDict(frozen=True)


class SourcesConfig(Section):
    """How corpora are cut."""

    shard_clips: PositiveInt
    """Rows a shard; later stages keep the shards."""
