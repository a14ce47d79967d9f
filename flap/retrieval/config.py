"""Sections `retrieval` and `benchmarks` of params.yaml."""

from typing import Literal

from pydantic import RootModel

from flap.config import Section


class RetrievalConfig(Section):
    batch: int
    recall_at: tuple[int, ...]


class BenchmarkConfig(Section):
    """One benchmark: all clips of a split with all their captions."""

    dataset: str
    split: Literal["train", "val", "test"]


class BenchmarksConfig(RootModel[dict[str, BenchmarkConfig]]):
    """Benchmarks by name."""
