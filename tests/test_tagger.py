"""Stage `tagger`: targets, mAP, training, resuming, and import of a released tagger."""

import json
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import SOUNDS, Corpus

from flap.core.audioset import display_names
from flap.core.errors import UserError
from flap.mels.clips import check_front_end, usable_clips
from flap.model.audio_encoder import AudioEncoder
from flap.model.config import EncoderConfig, Mask2D, SpecAugment, WeightsConfig
from flap.model.tagger import Tagger, save_tagger
from flap.tagger.build import build
from flap.tagger.config import TaggerConfig
from flap.tagger.evaluate import mean_average_precision, predict
from flap.tagger.labels import describe_unknown, make_targets
from flap.tagger.train import train
from flap.training.checkpoint import Checkpoints

ENCODER = EncoderConfig(
    clip_frames=48, n_mels=32, mel_mean=-6.0, mel_std=3.0, patch=16, width=32, depth=2, heads=2
)
CONFIG = TaggerConfig(
    seed=0,
    weights=None,
    mask=Mask2D(kind="2d", time_ratio=0.2, freq_ratio=0.0, members="shared"),
    spec_augment=SpecAugment(max_frames=0, max_bins=0),
    epochs=20,
    batch=6,
    learning_rate=2e-3,
    betas=(0.9, 0.95),
    weight_decay=0.01,
    warmup_steps=5,
    shuffle_shards=2,
    checkpoint_every=7,
    holdout_split="val",
    loader_workers=0,
)


def test_targets_and_counts_of_labels_that_are_no_class() -> None:
    found = make_targets(pd.Series([["Rain"], ["Siren", "Moo"], ["Moo"], []]), SOUNDS)
    assert found.hot_CX.tolist() == [[1, 0, 0], [0, 0, 1], [0, 0, 0], [0, 0, 0]]
    assert found.unknown == {"Moo": 2}


def test_only_the_most_frequent_unknown_labels_are_listed() -> None:
    counts = Counter({f"sound {n}": n for n in range(1, 8)})
    listed = "sound 7 (7), sound 6 (6), sound 5 (5), sound 4 (4), sound 3 (3), …"
    assert describe_unknown(counts) == f"7 labels: {listed}"
    assert describe_unknown(Counter({"Moo": 2})) == "1 label: Moo (2)"


def test_map_by_hand() -> None:
    hot = np.array([[1, 0, 0], [0, 1, 0], [1, 0, 0]], dtype=np.float32)
    probability = np.array([[0.9, 0.1, 0.5], [0.5, 0.2, 0.5], [0.1, 0.3, 0.5]])
    found = mean_average_precision(hot, probability)
    # Class 0 has hits at ranks 1 and 3: (1 + 2/3) / 2. Class 1 has a hit at rank 2. Class 2 has
    # no positive.
    assert found["mAP"] == pytest.approx(((1 + 2 / 3) / 2 + 1 / 2) / 2)
    assert (found["classes"], found["clips"]) == (2, 3)
    assert found["chance"] == pytest.approx(0.5)


def test_training_learns_and_resumes_to_the_bit(corpus: Corpus, tmp_path: Path) -> None:
    clips = usable_clips(corpus.clips, corpus.mels, ["toy"], ["train"])
    holdout = usable_clips(corpus.clips, corpus.mels, ["toy"], ["val"])
    hot_CX = make_targets(clips["labels"], SOUNDS).hot_CX

    def trained(checkpoints: Path) -> np.ndarray:
        torch.manual_seed(0)
        tagger = Tagger(ENCODER, 3)
        train(CONFIG, tagger, clips, hot_CX, checkpoints)
        return predict(tagger, holdout)

    unbroken = trained(tmp_path / "unbroken")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Checkpoints, "save", _save_twice_then_interrupt(Checkpoints.save))
        with pytest.raises(KeyboardInterrupt):
            trained(tmp_path / "broken")
    assert np.array_equal(trained(tmp_path / "broken"), unbroken)
    truth = make_targets(holdout["labels"], SOUNDS).hot_CX
    assert mean_average_precision(truth, unbroken)["mAP"] > 0.95


def _save_twice_then_interrupt(save: Callable[..., None]) -> Callable[..., None]:
    def wrapped(checkpoints: Checkpoints, step: int) -> None:
        if step > 2 * CONFIG.checkpoint_every:
            raise KeyboardInterrupt
        save(checkpoints, step)

    return wrapped


def test_fewer_clips_than_a_batch_are_an_error(corpus: Corpus, tmp_path: Path) -> None:
    clips = usable_clips(corpus.clips, corpus.mels, ["toy"], ["val"])
    config = CONFIG.model_copy(update={"epochs": 1, "batch": 64})
    with pytest.raises(UserError, match=r"fewer than one batch of 64; lower tagger\.batch"):
        train(config, Tagger(ENCODER, 3), clips, np.zeros((6, 3)), tmp_path)


def weights(source: Path) -> WeightsConfig:
    return WeightsConfig(source=str(source), revision=None, sha256=None)


def test_a_released_tagger_is_imported_without_training(corpus: Corpus, tmp_path: Path) -> None:
    """The stage's command line with `epochs: 0`: the same weights, and the mAP of the holdout."""
    torch.manual_seed(1)
    save_tagger(tmp_path / "released", Tagger(ENCODER, 527), display_names())
    config = CONFIG.model_copy(update={"epochs": 0, "weights": weights(tmp_path / "released")})
    params = {
        "tagger": config.model_dump(mode="json"),
        "encoder": ENCODER.model_dump(),
        "datasets": {
            "toy": {"adapter": "clotho", "path": "toy", "watch": "toy", "captions": "required"}
        },
    }
    (tmp_path / "params.yaml").write_text(json.dumps(params))
    command = "-m pipeline.tagger --clips data/sources --mels data/audio --audit data/audit "
    command += "--out data/tagger/model --metrics tagger.json"
    done = subprocess.run(
        [sys.executable, *command.split()],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[1])},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "tensors loaded" in done.stdout
    released = (tmp_path / "released" / "model.safetensors").read_bytes()
    assert (tmp_path / "data/tagger/model/model.safetensors").read_bytes() == released
    assert json.loads((tmp_path / "tagger.json").read_text())["classes"] == 3


def test_neither_training_nor_a_head_is_an_error(tmp_path: Path) -> None:
    config = CONFIG.model_copy(update={"epochs": 0})
    with pytest.raises(UserError, match=r"tagger\.weights: .* must name a fine-tuned tagger"):
        build(config, ENCODER, 3)
    family = ENCODER.model_copy(update={"n_mels": 128})
    torch.save(AudioEncoder(family).state_dict(), tmp_path / "encoder.pth")
    headless = config.model_copy(update={"weights": weights(tmp_path / "encoder.pth")})
    with pytest.raises(UserError, match="with its head"):
        build(headless, family, 3)


def test_another_front_end_is_an_error(corpus: Corpus) -> None:
    clips = usable_clips(corpus.clips, corpus.mels, ["toy"], ["val"])
    check_front_end(clips, 32)
    with pytest.raises(UserError, match=r"has 32 mel bins, but encoder\.n_mels is 64"):
        check_front_end(clips, 64)
