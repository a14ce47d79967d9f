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
    """How FLAP embeds a clip longer than its window: its middle window (with fusion also the whole
    clip, resized), or the mean embedding of windows that cover it."""
    positives: Literal["own", "shared"]
    """Right answers: a clip's own captions, or also those of clips that share a caption with it."""
    resamples: PositiveInt
    """Number of draws of the bootstrap over clips."""
    seed: int


class OwnFlap(Section):
    """The model that the stage `pretrain` made."""

    kind: Literal["flap"]


class SavedModel(Section):
    """A FLAP model in any folder, as the stage `pretrain` writes it."""

    kind: Literal["saved"]
    source: str


class ReleasedClap(Section):
    """A CLAP of transformers, such as LS-CLAP's; it reads recordings instead of MELS."""

    kind: Literal["clap"]
    source: str  # directory or hub name; safetensors only
    revision: str  # on the hub; ignored for a directory


class RandomModel(Section):
    """Random embeddings: the chance level, measured by the same code."""

    kind: Literal["random"]
    seed: int


ScoredModel = Annotated[
    OwnFlap | SavedModel | ReleasedClap | RandomModel, Field(discriminator="kind")
]


class RetrievalTask(Section):
    """Retrieval between the clips and the captions of a split, in both directions."""

    task: Literal["retrieval"]
    dataset: str
    split: Split
    model: ScoredModel


class ZeroShotTask(Section):
    """Classification of a split's clips by their similarity to prompts of the corpus's labels."""

    task: Literal["zero_shot"]
    dataset: str
    split: Split
    templates: tuple[str, ...]
    """Prompts; a class's embedding is the mean over them and over the label's synonyms."""
    model: ScoredModel

    @field_validator("templates")
    @classmethod
    def _name_the_label(cls, templates: tuple[str, ...]) -> tuple[str, ...]:
        if not templates or any("{label}" not in template for template in templates):
            raise ValueError("expected one or more texts, with {label} in each")
        return templates


class LinearProbeTask(Section):
    """Classification of a split's clips by a linear classifier of their embeddings."""

    task: Literal["linear_probe"]
    dataset: str
    split: Split
    train_split: Split
    inverse_regularisation: PositiveFloat  # C of scikit-learn's LogisticRegression
    max_iterations: NonNegativeInt
    model: ScoredModel

    @model_validator(mode="after")
    def _splits_differ(self) -> "LinearProbeTask":
        if self.train_split == self.split:
            raise ValueError("train_split and split must differ")
        return self


BenchmarkConfig = Annotated[
    RetrievalTask | ZeroShotTask | LinearProbeTask, Field(discriminator="task")
]
BenchmarkName = Annotated[str, Field(pattern=r"^[a-z0-9-]+$")]


class BenchmarksConfig(RootModel[dict[BenchmarkName, BenchmarkConfig]]):
    """Benchmarks by name; names are parts of paths, so only a-z, 0-9 and dashes."""
