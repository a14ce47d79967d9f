"""Classification with a corpus's labels as classes: zero-shot by prompts, or a linear probe.

Each clip is a query over all classes, and the best ranked of its own labels counts.

Letters: C clips, L classes, E width of the embeddings.
"""

from collections.abc import Iterator, Sequence

import numpy as np
import pandas as pd
from scipy.sparse import csr_array

from flap.core.errors import UserError
from flap.core.shards import Row
from flap.model.device import default_device
from flap.retrieval.config import LinearProbeTask, RetrievalConfig, ZeroShotTask
from flap.retrieval.embed import Embedder, embed_captions, embed_clips
from flap.retrieval.ranks import rank_right_answers, rank_scores
from flap.retrieval.table import rank_rows

DIRECTION = "audio_to_class"


def rank_zero_shot(
    name: str, task: ZeroShotTask, corpus: pd.DataFrame, embedder: Embedder, config: RetrievalConfig
) -> Iterator[Row]:
    """Rank all classes for each labelled clip of the task's split, by similarity to prompts.

    Args:
        name: the benchmark.
        corpus: clips of all splits, as `flap.mels.clips.usable_clips` gives them; all their labels
            are classes.

    Raises:
        UserError: no clip of the split has a label.
    """
    clips, classes = _labelled(name, corpus, task.split), _classes(corpus)
    audio_CE = embed_clips(embedder, clips, config.batch)
    class_LE = _embed_classes(embedder, classes, task.templates, config.batch)
    right_CL = _multi_hot(clips, classes)
    ranks = rank_right_answers(audio_CE, class_LE, right_CL, default_device())
    clip_ids = list(clips["clip_id"])
    return rank_rows(name, DIRECTION, clip_ids, clip_ids, ranks, len(classes))


def rank_linear_probe(
    name: str,
    task: LinearProbeTask,
    corpus: pd.DataFrame,
    embedder: Embedder,
    config: RetrievalConfig,
) -> Iterator[Row]:
    """Rank all classes for each labelled clip of the task's split, by logistic regressions.

    There is one regression per class. The classes are the labels that some but not all clips of
    `train_split` have. Other labels of test clips are ignored.

    Args:
        name, corpus: as of `rank_zero_shot`.

    Raises:
        UserError: no clip of `train_split` has a label, or no clip of the split has a class.
    """
    training = _labelled(name, corpus, task.train_split)
    counts = training["labels"].explode().value_counts()
    classes = sorted(counts.index[counts < len(training)])
    clips = _labelled(name, corpus, task.split)
    clips = clips[[any(label in classes for label in own) for own in clips["labels"]]]
    if clips.empty:
        raise UserError(
            f"benchmarks.{name}: no clip of split {task.split} has a label that some, but not all, "
            f"clips of split {task.train_split} have"
        )
    scores_CL = _probe(
        embed_clips(embedder, training, config.batch),
        _multi_hot(training, classes).toarray(),
        embed_clips(embedder, clips, config.batch),
        task,
    )
    ranks = rank_scores(scores_CL.astype(np.float32), _multi_hot(clips, classes))
    clip_ids = list(clips["clip_id"])
    return rank_rows(name, DIRECTION, clip_ids, clip_ids, ranks, len(classes))


def _probe(
    train_CE: np.ndarray, hot_CL: np.ndarray, test_CE: np.ndarray, task: LinearProbeTask
) -> np.ndarray:
    """Scores (C, L) of the test clips.

    Args:
        train_CE, test_CE: embeddings.
        hot_CL: boolean, the classes of each training clip.
    """
    from sklearn.linear_model import LogisticRegression
    from sklearn.multiclass import OneVsRestClassifier
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    per_class = LogisticRegression(C=task.inverse_regularisation, max_iter=task.max_iterations)
    probe = make_pipeline(StandardScaler(), OneVsRestClassifier(per_class))
    scores = probe.fit(train_CE, hot_CL).decision_function(test_CE)
    return np.asarray(scores).reshape(len(test_CE), -1)


def _embed_classes(
    embedder: Embedder, classes: Sequence[str], templates: Sequence[str], batch: int
) -> np.ndarray:
    """Class embeddings (L, E): L2-normalised means over templates and over a label's synonyms.

    AudioSet separates synonyms by commas ("Gunshot, gunfire"); ESC-50 has underscores for spaces.
    """
    prompts = [
        [
            template.replace("{label}", synonym.strip().replace("_", " ").lower())
            for template in templates
            for synonym in label.split(",")
        ]
        for label in classes
    ]
    embedded = embed_captions(embedder, [text for own in prompts for text in own], batch)
    ends = np.cumsum([len(own) for own in prompts])
    class_LE = np.stack([part.mean(axis=0) for part in np.split(embedded, ends[:-1])])
    return class_LE / np.linalg.norm(class_LE, axis=1, keepdims=True)


def _labelled(name: str, corpus: pd.DataFrame, split: str) -> pd.DataFrame:
    found = corpus[(corpus["split"] == split) & (corpus["labels"].map(len) > 0)]
    if found.empty:
        raise UserError(f"benchmarks.{name}: no clip of split {split} has a label")
    return found


def _classes(corpus: pd.DataFrame) -> list[str]:
    return sorted({label for own in corpus["labels"] for label in own})


def _multi_hot(clips: pd.DataFrame, classes: Sequence[str]) -> csr_array:
    """(C, L) boolean: the classes among each clip's labels."""
    index = {label: i for i, label in enumerate(classes)}
    columns = [sorted({index[x] for x in own if x in index}) for own in clips["labels"]]
    starts = np.cumsum([0, *map(len, columns)])
    flat = np.array([column for own in columns for column in own], dtype=int)
    return csr_array((np.ones(len(flat), bool), flat, starts), shape=(len(clips), len(classes)))
