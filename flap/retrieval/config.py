"""Sections `retrieval` and `benchmarks` of params.yaml."""

from typing import Annotated, Literal

from pydantic import (
    Field,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    RootModel,
    field_validator,
    model_validator,
)

from flap.core.config import Section
from flap.core.schemas import Split


class RetrievalConfig(Section):
    batch: PositiveInt
    recall_at: tuple[PositiveInt, ...]
    long_clips: Literal["middle", "pooled"]
    """What FLAP hears of a clip longer than its window: the middle (with fusion also the whole,
    squeezed), or the mean embedding of the windows that cover it."""
    positives: Literal["own", "shared"]
    """Which answers are right: a clip's own, or those of clips that share a caption as well."""
    resamples: PositiveInt
    """Draws of the bootstrap over clips."""
    seed: int


class OwnFlap(Section):
    """The model that the stage `pretrain` made."""

    kind: Literal["flap"]


class SavedModel(Section):
    """Any folder with a FLAP model, as `pretrain` writes them."""

    kind: Literal["saved"]
    source: str


class ReleasedClap(Section):
    """A CLAP of transformers, LS-CLAP's for one, that hears the recordings themselves."""

    kind: Literal["clap"]
    source: str  # directory or hub name; safetensors only
    revision: str  # of the hub; of no effect on a directory


class RandomModel(Section):
    """Embeddings drawn from a seed: what chance scores under the same code."""

    kind: Literal["random"]
    seed: int


ScoredModel = Annotated[
    OwnFlap | SavedModel | ReleasedClap | RandomModel, Field(discriminator="kind")
]


class RetrievalTask(Section):
    """All captions of a split against all its clips, and back."""

    task: Literal["retrieval"]
    dataset: str
    split: Split
    model: ScoredModel


class ZeroShotTask(Section):
    """The clips of a split against the corpus's labels, each said by some prompts."""

    task: Literal["zero_shot"]
    dataset: str
    split: Split
    templates: tuple[str, ...]
    """A class's embedding is the mean over these and over the label's synonyms."""
    model: ScoredModel

    @field_validator("templates")
    @classmethod
    def _name_the_label(cls, templates: tuple[str, ...]) -> tuple[str, ...]:
        if not templates or any("{label}" not in template for template in templates):
            raise ValueError("one or more texts are expected, with {label} in each")
        return templates


class LinearProbeTask(Section):
    """The clips of a split against the corpus's labels by a linear classifier of embeddings."""

    task: Literal["linear_probe"]
    dataset: str
    split: Split
    train_split: Split
    inverse_regularisation: PositiveFloat  # C of scikit-learn's LogisticRegression
    max_iterations: NonNegativeInt
    model: ScoredModel

    @model_validator(mode="after")
    def _tests_what_it_has_not_learned(self) -> "LinearProbeTask":
        if self.train_split == self.split:
            raise ValueError("train_split and split have to differ")
        return self


BenchmarkConfig = Annotated[
    RetrievalTask | ZeroShotTask | LinearProbeTask, Field(discriminator="task")
]
BenchmarkName = Annotated[str, Field(pattern=r"^[a-z0-9-]+$")]


class BenchmarksConfig(RootModel[dict[BenchmarkName, BenchmarkConfig]]):
    """Benchmarks by name; names stand in paths, so a-z, 0-9 and dashes only."""
