"""Sections `datasets` and `sources` of params.yaml."""

import math
from typing import Annotated, Literal

from pydantic import ConfigDict, Field, NonNegativeInt, PositiveInt, RootModel, model_validator

from flap.core.config import Section
from flap.core.schemas import Split

Fraction = Annotated[float, Field(ge=0.0, le=1.0)]


class SplitClips(Section):
    """Number of clips to generate for each split."""

    train: PositiveInt
    val: NonNegativeInt
    test: NonNegativeInt


class SplitFractions(Section):
    """Share of the clips for each split, 0..1; the three sum to 1."""

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
    """Splits by a hash of the seed and of the clip's captions, for a corpus that names none."""

    seed: NonNegativeInt
    fractions: SplitFractions


class DemoDataset(Section):
    """Generated soundscapes (`flap.sources.demo`)."""

    adapter: Literal["demo"]
    path: str
    """Catalogue of sounds; path relative to the project's root."""
    watch: str
    clips: SplitClips
    seed: NonNegativeInt


class CorpusDataset(Section):
    """Fields of every corpus that an adapter reads."""

    path: str
    """Folder of the corpus: path relative to the project's root, or fsspec URL (s3://, hf://)."""
    watch: str
    """File or folder that DVC watches for changes: the corpus's folder, or, if the folder is
    remote or too large to hash, a small local file that changes with it."""
    captions: Literal["required", "optional"]
    """required: recordings without captions are rejected. optional: such recordings are kept for
    tagging and for training by reconstruction alone."""


class FolderDataset(CorpusDataset):
    """A folder of recordings with one CSV or Parquet table (`flap.sources.folder`)."""

    adapter: Literal["folder"]
    splits: DrawnSplits
    """Applies if the table has no column `split`."""


class AudioCapsDataset(CorpusDataset):
    """AudioCaps' tables and a folder of its excerpts (`flap.sources.audiocaps`)."""

    adapter: Literal["audiocaps"]


class ClothoDataset(CorpusDataset):
    """Clotho v2.1 as published (`flap.sources.clotho`)."""

    adapter: Literal["clotho"]


class WavCapsDataset(CorpusDataset):
    """One part of WavCaps: its JSON and a folder of recordings (`flap.sources.wavcaps`)."""

    adapter: Literal["wavcaps"]
    table: str
    """Path of the part's JSON, relative to the corpus's folder."""
    blacklist: str | None
    """Path of WavCaps' JSON of clips to leave out, relative to the corpus's folder."""


class TarsDataset(CorpusDataset):
    """Webdataset tars such as those of LAION-Audio-630K and LS-CLAP (`flap.sources.tars`)."""

    adapter: Literal["tars"]
    splits: dict[str, Split]
    """Folder of tars, relative to the corpus's folder → split."""


class Folds(Section):
    """Splits by the column `fold` of ESC-50 and similar corpora; all other folds are train."""

    val: list[int]
    test: list[int]

    @model_validator(mode="after")
    def _disjoint(self) -> "Folds":
        if set(self.val) & set(self.test):
            raise ValueError("a fold cannot be both val and test")
        return self


class LabelledDataset(CorpusDataset):
    """Recordings with labels, such as ESC-50 (`flap.sources.labelled`)."""

    adapter: Literal["labelled"]
    splits: Folds | DrawnSplits
    caption: Annotated[str, Field(pattern=r"\{label\}")] | None
    """Caption for clips without one, such as "The sound of {label}."; null: no caption."""


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
    """Any data set that the library `datasets` loads (`flap.sources.huggingface`)."""

    adapter: Literal["huggingface"]
    revision: str | None
    configuration: str | None
    splits: dict[str, Split]
    """Name of the split in the data set → train, val or test; other splits are left out."""
    columns: dict[Column, str]
    """Field of a clip → column of the data set; `audio` is required."""

    @model_validator(mode="after")
    def _has_audio(self) -> "HuggingFaceDataset":
        if "audio" not in self.columns:
            raise ValueError("columns must name the column for `audio`")
        return self


DatasetName = Annotated[str, Field(pattern=r"^[a-z0-9-]+$")]
Dataset = Annotated[
    DemoDataset
    | FolderDataset
    | AudioCapsDataset
    | ClothoDataset
    | WavCapsDataset
    | TarsDataset
    | LabelledDataset
    | HuggingFaceDataset,
    Field(discriminator="adapter"),
]


class DatasetsConfig(RootModel[dict[DatasetName, Dataset]]):
    """Name of each dataset → its entry. Names are part of paths: only a-z, 0-9 and dashes."""

    model_config = ConfigDict(frozen=True)


class SourcesConfig(Section):
    """Section `sources`: the size of shards."""

    shard_clips: PositiveInt
    """Rows of each shard; later stages keep the shards."""
