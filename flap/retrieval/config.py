"""Sections `retrieval` and `benchmarks` of params.yaml."""

from typing import Annotated, Literal

from pydantic import Field, PositiveInt, RootModel

from flap.config import Section


class RetrievalConfig(Section):
    batch: PositiveInt
    recall_at: tuple[PositiveInt, ...]


class BenchmarkConfig(Section):
    """One benchmark: all clips of a split with all their captions."""

    dataset: str
    split: Literal["train", "val", "test"]


BenchmarkName = Annotated[str, Field(pattern=r"^[a-z0-9-]+$")]


class BenchmarksConfig(RootModel[dict[BenchmarkName, BenchmarkConfig]]):
    """Benchmarks by name; names stand in paths, so a-z, 0-9 and dashes only."""
