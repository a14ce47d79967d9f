"""Sections `retrieval` and `benchmarks` of params.yaml."""

from typing import Annotated, Literal

from pydantic import Field, PositiveInt, RootModel

from flap.config import Section


class RetrievalConfig(Section):
    batch: PositiveInt
    recall_at: tuple[PositiveInt, ...]


class OwnFlap(Section):
    """The model that the stage `pretrain` made."""

    kind: Literal["flap"]


class ReleasedClap(Section):
    """A CLAP of transformers, LS-CLAP's for one, that hears the recordings themselves."""

    kind: Literal["clap"]
    source: str  # directory or hub name; safetensors only
    revision: str  # of the hub; of no effect on a directory


ScoredModel = Annotated[OwnFlap | ReleasedClap, Field(discriminator="kind")]


class BenchmarkConfig(Section):
    """One benchmark: a model on all clips of a split with all their captions."""

    dataset: str
    split: Literal["train", "val", "test"]
    model: ScoredModel


BenchmarkName = Annotated[str, Field(pattern=r"^[a-z0-9-]+$")]


class BenchmarksConfig(RootModel[dict[BenchmarkName, BenchmarkConfig]]):
    """Benchmarks by name; names stand in paths, so a-z, 0-9 and dashes only."""
