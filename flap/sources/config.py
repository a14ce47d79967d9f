"""Sections `datasets` and `sources` of params.yaml."""

import math
from typing import Annotated, Literal

from pydantic import ConfigDict, Field, NonNegativeInt, PositiveInt, RootModel, model_validator

from flap.config import Section

SPLITS = ("train", "val", "test")
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


class DemoDataset(Section):
    """Soundscapes made by rule (`flap.sources.demo`)."""

    adapter: Literal["demo"]
    path: str
    """Catalogue of sounds, from the project's root."""
    clips: SplitClips
    seed: NonNegativeInt


class FolderDataset(Section):
    """A folder of recordings with one CSV (`flap.sources.folder`)."""

    adapter: Literal["folder"]
    path: str
    """The folder, from the project's root."""
    seed: NonNegativeInt
    splits: SplitFractions


DatasetName = Annotated[str, Field(pattern=r"^[a-z0-9-]+$")]
Dataset = Annotated[DemoDataset | FolderDataset, Field(discriminator="adapter")]


class DatasetsConfig(RootModel[dict[DatasetName, Dataset]]):
    """Every corpus by name; names stand in paths, so a-z, 0-9 and dashes only."""

    model_config = ConfigDict(frozen=True)


class SourcesConfig(Section):
    """How corpora are cut."""

    shard_clips: PositiveInt
    """Rows a shard; later stages keep the shards."""
