"""Stage `pretrain`: pairs, training, bit-identical resumption, the same result on two ranks."""

import os
import signal
import subprocess
import sys
import time
from contextlib import nullcontext
from itertools import pairwise
from pathlib import Path

import pandas as pd
import pytest
import torch
from conftest import SOUNDS, Corpus, write_corpus
from safetensors.torch import load_file
from spawned_ranks import run_ranks
from test_tagger import ENCODER

from flap import FlapProcessor
from flap.core.config import load_section
from flap.core.errors import UserError
from flap.mels.clips import usable_clips
from flap.mels.reader import MelReader
from flap.model.audio_encoder import AudioEncoder
from flap.model.config import WeightsConfig
from flap.model.import_weights import import_weights
from flap.model.saved import load_flap
from flap.model.tagger import Tagger, save_tagger
from flap.pretrain import pairs
from flap.pretrain.config import PretrainConfig
from flap.pretrain.history import MACHINE_COLUMNS
from flap.pretrain.inputs import InputBuilder
from flap.pretrain.pairs import is_sampled, training_clips, validation_clips
from flap.pretrain.validation import validate
from pipeline import pretrain

ROOT = Path(__file__).parents[1]
ARGUMENTS = [
    *("--clips", "data/sources", "--mels", "data/audio", "--captions", "data/captions"),
    *("--audit", "data/audit", "--tagger", "data/tagger/model", "--out", "data/pretrain/model"),
    *("--history", "history.csv"),
]
PARAMS = """
datasets:
  toy: {{adapter: clotho, path: toy, watch: toy, captions: required}}
encoder: {{clip_frames: 48, n_mels: 32, mel_mean: -6.0, mel_std: 3.0, patch: 16, width: 32,
  depth: 2, heads: 2}}
model:
  text: {{kind: scratch, vocabulary: 400, width: 16, depth: 1, heads: 2, dropout: {dropout},
    pooling: pooler, max_tokens: 16}}
  fusion: false
  decoder: {{width: 16, depth: 1, heads: 2, normalise_patches: true}}
  embedding: 8
  initial_temperature: 0.07
  max_logit_scale: 4.6
pretrain:
  seed: 0
  audio_weights: tagger
  captions: both
  enriched_share: 1.0
  mask: {{kind: 2d, time_ratio: 0.4, freq_ratio: 0.0, members: independent}}
  views: 2
  reconstruction_weight: 0.5
  spec_augment: {{max_frames: 4, max_bins: 4}}
  epochs: {epochs}
  unmasked_steps: 0
  batch: 8
  micro_batch: null
  optimizer: ls_clap
  learning_rate: 2.0e-3
  warmup_steps: 5
  max_gradient_norm: null
  ema_decay: null
  keep: last
  gradient_checkpointing: false
  compile: false
  shuffle_shards: 2
  streams: 4
  evaluate_every: 10
  checkpoint_every: 10
  loader_workers: 0
"""


def test_pairs_are_originals_and_kept_captions(corpus: Corpus) -> None:
    def pairs(which: str) -> "pd.Series[list[str]]":
        found = training_clips(corpus.clips, corpus.mels, corpus.captions, ["toy"], which)  # type: ignore[arg-type]
        return found.set_index("clip_id")["captions"].map(list)

    original, enriched, both = pairs("original"), pairs("enriched"), pairs("both")
    assert len(original) == len(both) == 18
    assert set(enriched.index) == {i for i in original.index if i.endswith(("0", "5"))}
    assert both["toy/0"] == [*original["toy/0"], "Enriched."]
    assert both["toy/1"] == original["toy/1"]


def test_no_kept_caption_is_an_error_that_names_the_switch(corpus: Corpus, tmp_path: Path) -> None:
    from flap.core.schemas import CAPTIONS
    from flap.core.shards import read_table, shard_paths, write_rows

    for path in shard_paths(corpus.captions / "toy"):
        rows = [row | {"kept": False} for row in read_table(path, CAPTIONS).to_pylist()]
        write_rows(path, rows, CAPTIONS, {})
    with pytest.raises(UserError, match=r"pretrain\.captions=enriched"):
        training_clips(corpus.clips, corpus.mels, corpus.captions, ["toy"], "enriched")


def test_a_share_of_the_kept_captions_is_added_to_the_originals(corpus: Corpus) -> None:
    def added(share: float, seed: int = 0) -> set[str]:
        folders = corpus.clips, corpus.mels, corpus.captions
        found = training_clips(*folders, ["toy"], "both", enriched_share=share, seed=seed)
        assert len(found) == 18
        return set(found.loc[found["captions"].map(lambda texts: "Enriched." in texts), "clip_id"])

    every, some, none = added(1.0), added(0.5), added(0.0)
    assert not none and some < every and len(every) == 6
    assert some == {i for i in every if is_sampled(0.5, 0, i, "Enriched.")}
    assert len({frozenset(added(0.5, seed)) for seed in range(8)}) > 1


def test_draws_are_nested_and_as_many_as_asked() -> None:
    pairs = [(f"toy/{i}", caption) for i in range(5000) for caption in ("A dog.", "犬 {0}\n")]
    shares = (0.0, 0.1, 0.25, 0.5, 0.9, 1.0)
    drawn = [{pair for pair in pairs if is_sampled(share, 7, *pair)} for share in shares]
    assert all(fewer <= more for fewer, more in pairwise(drawn))
    assert [len(found) / len(pairs) for found in drawn] == pytest.approx(shares, abs=0.02)
    assert drawn[0] == set() and drawn[-1] == set(pairs)
    halves = {(a in drawn[3], b in drawn[3]) for a, b in zip(pairs[::2], pairs[1::2], strict=True)}
    assert len(halves) == 4  # each caption of a clip is sampled on its own


@pytest.mark.parametrize(
    ("captions", "share", "error"),
    [
        ("both", 0.5, None),
        ("original", 1.0, None),
        ("original", 0.5, r"pretrain\.enriched_share .* pretrain\.captions: both"),
        ("enriched", 0.0, r"pretrain\.enriched_share .* pretrain\.captions: both"),
        ("both", 1.5, r"'pretrain\.enriched_share'"),
        ("both", -0.1, r"'pretrain\.enriched_share'"),
    ],
)
def test_a_share_is_for_both_alone(
    tmp_path: Path, captions: str, share: float, error: str | None
) -> None:
    text = PARAMS.format(dropout=0.0, epochs=1).replace("captions: both", f"captions: {captions}")
    path = tmp_path / "params.yaml"
    path.write_text(text.replace("enriched_share: 1.0", f"enriched_share: {share}"))
    with pytest.raises(UserError, match=error) if error else nullcontext():
        load_section(path, "pretrain", PretrainConfig)


def test_val_clips_without_captions_are_left_out(
    corpus: Corpus, monkeypatch: pytest.MonkeyPatch
) -> None:
    folders = (corpus.clips, corpus.mels, ["toy"])
    clips = validation_clips(*folders, "both")
    some = clips.assign(captions=[[], *clips["captions"][1:]])
    monkeypatch.setattr(pairs, "usable_clips", lambda *_: some)
    assert list(validation_clips(*folders, "both")["clip_id"]) == list(clips["clip_id"][1:])
    assert len(validation_clips(*folders, "none")) == len(clips)
    monkeypatch.setattr(pairs, "usable_clips", lambda *_: some[:1])
    with pytest.raises(UserError, match="no clip of split val has a caption"):
        validation_clips(*folders, "both")


def test_reader_gives_each_row_through_a_cache_of_one_group(corpus: Corpus) -> None:
    clips = usable_clips(corpus.clips, corpus.mels, ["toy"], ["train", "val", "test"])
    reader = MelReader()
    lengths = [len(reader.read(row.path, row.row)) for row in clips[::-1].itertuples()]
    assert lengths == [30 + i for i in reversed(range(30))]


def start(
    folder: Path, processes: int, environment: dict[str, str] | None = None
) -> "subprocess.Popen[str]":
    env = os.environ | {
        "PYTHONPATH": str(ROOT),
        "FLAP_NPROC": str(processes),
        "FLAP_PEAK_TFLOPS": "1",
        "OMP_NUM_THREADS": "1",
    }
    env |= environment or {}
    return subprocess.Popen(
        [sys.executable, "-m", "pipeline.launch", "pipeline.pretrain", *ARGUMENTS],
        cwd=folder,
        env=env,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def project(
    corpus: Corpus, *, epochs: int, dropout: float, changes: dict[str, str] | None = None
) -> Path:
    torch.manual_seed(0)
    save_tagger(corpus.data / "tagger" / "model", Tagger(ENCODER, 3), SOUNDS)
    params = PARAMS.format(epochs=epochs, dropout=dropout)
    for line, other in (changes or {}).items():
        assert line in params
        params = params.replace(line, other)
    (corpus.data.parent / "params.yaml").write_text(params)
    return corpus.data.parent


Result = tuple[dict[str, torch.Tensor], pd.DataFrame]


def finish(folder: Path, processes: int = 1, environment: dict[str, str] | None = None) -> Result:
    """Run the stage by the launcher; weights and history, without the machine's columns."""
    child = start(folder, processes, environment)
    output, _ = child.communicate(timeout=200)
    assert child.returncode == 0, output
    return result(folder)


def train(folder: Path, processes: int = 1, environment: dict[str, str] | None = None) -> Result:
    """As `finish`, but without the launcher, from processes that have loaded torch."""
    run_ranks(processes, _run_stage, folder, {"FLAP_PEAK_TFLOPS": "1"} | (environment or {}))
    return result(folder)


def _run_stage(folder: Path, environment: dict[str, str]) -> None:
    os.environ |= environment
    os.chdir(folder)
    options = zip(ARGUMENTS[::2], ARGUMENTS[1::2], strict=True)
    pretrain.main(**{name.removeprefix("--"): Path(value) for name, value in options})


def result(folder: Path) -> Result:
    weights = load_file(folder / "data" / "pretrain" / "model" / "model.safetensors")
    history = pd.read_csv(folder / "history.csv")
    assert (history[list(MACHINE_COLUMNS)] > 0).all(axis=None)
    return weights, history.drop(columns=list(MACHINE_COLUMNS))


@pytest.fixture(scope="module")
def baseline(tmp_path_factory: pytest.TempPathFactory) -> pd.DataFrame:
    """The history of ten epochs in one process."""
    corpus = write_corpus(tmp_path_factory.mktemp("baseline") / "data")
    folder = project(corpus, epochs=10, dropout=0.0)
    _, history = train(folder)
    assert history["step"].tolist() == list(range(1, len(history) + 1))
    assert history["val_loss"].notna().sum() == -(-len(history) // 10)
    load_flap(folder / "data" / "pretrain" / "model")
    return history


@pytest.mark.slow
def test_two_ranks_learn_what_one_learns(corpus: Corpus, baseline: pd.DataFrame) -> None:
    _, on_two = finish(project(corpus, epochs=10, dropout=0.0), processes=2)
    # Weights with a gradient of zero (key biases) drift with rounding under Adam; losses do not.
    pd.testing.assert_frame_equal(baseline, on_two, rtol=2e-3)


@pytest.mark.slow
def test_killed_training_resumes_to_the_bit(corpus: Corpus) -> None:
    folder = project(corpus, epochs=60, dropout=0.1)
    unbroken, history = finish(folder)
    child = start(folder, 1)
    work = folder / "data" / ".work" / "pretrain" / "model"
    deadline = time.monotonic() + 120
    while _last_checkpoint(work) < 130 and time.monotonic() < deadline:
        time.sleep(0.05)
    child.send_signal(signal.SIGKILL)
    child.communicate()
    assert 130 <= _last_checkpoint(work) < len(history) - 100
    resumed, resumed_history = finish(folder)
    losses = history["loss"]
    assert losses.iloc[-20:].mean() < 0.9 * losses.iloc[5:25].mean()
    for name, weight in unbroken.items():
        assert torch.equal(weight, resumed[name]), name
    pd.testing.assert_frame_equal(history, resumed_history)


def _last_checkpoint(work: Path) -> int:
    """The step of the last complete checkpoint; 0 if there is none."""
    found = [path.name for path in work.glob("*/checkpoints/step-*") if not path.suffix]
    return max((int(name.removeprefix("step-")) for name in found), default=0)


@pytest.mark.slow
def test_micro_batches_and_ranks_learn_what_one_learns(
    corpus: Corpus, baseline: pd.DataFrame
) -> None:
    folder = project(
        corpus, epochs=10, dropout=0.0, changes={"micro_batch: null": "micro_batch: 3"}
    )
    _, in_parts = train(folder, processes=2)
    pd.testing.assert_frame_equal(baseline, in_parts, rtol=2e-3)


@pytest.mark.slow
def test_the_best_average_of_the_weights_is_kept(corpus: Corpus) -> None:
    changes = {
        "keep: last": "keep: best",
        "ema_decay: null": "ema_decay: 0.9",
        "max_gradient_norm: null": "max_gradient_norm: 0.1",
        "unmasked_steps: 0": "unmasked_steps: 12",
        "evaluate_every: 10": "evaluate_every: 3",
        "learning_rate: 2.0e-3": "learning_rate: 5.0e-2",  # so that the last is not the best
        "checkpoint_every: 10": "checkpoint_every: 7",
    }
    folder = project(corpus, epochs=10, dropout=0.0, changes=changes)
    _, history = train(folder)
    assert history["reconstruction_loss"].isna().sum() == 12
    saved = load_flap(folder / "data/pretrain/model")
    inputs = InputBuilder(saved.tokenizer, saved.model.config, torch.device("cpu"))
    val = usable_clips(corpus.clips, corpus.mels, ["toy"], ["val"])
    found = validate(saved.model, inputs, val)
    evaluated = history.dropna(subset=["val_recall_at_10"])
    best = evaluated.loc[evaluated["val_recall_at_10"].idxmax()]
    assert found.recall_at_10 == pytest.approx(best["val_recall_at_10"])
    assert found.loss == pytest.approx(best["val_loss"], rel=1e-4)
    assert len(evaluated) == -(-len(history) // 3)


def test_audio_alone_is_learned_by_reconstruction(corpus: Corpus) -> None:
    """With captions: none, all clips count and the text encoder is frozen, also on two ranks."""
    changes = {
        "captions: both": "captions: none",
        "audio_weights: tagger": "audio_weights: scratch",
    }
    folder = project(corpus, epochs=40, dropout=0.0, changes=changes)
    weights, history = train(folder, processes=2)
    assert len(history) == 40 * 18 // 8  # each of 18 training clips once per epoch
    assert history["loss"].iloc[-10:].mean() < 0.9 * history["loss"].iloc[:10].mean()
    assert history["val_loss"].dropna().iloc[-1] < history["val_loss"].dropna().iloc[0]
    assert history["logit_scale"].nunique() == 1
    target = AudioEncoder(ENCODER)
    source = WeightsConfig(source=str(folder / "data/pretrain/model"), revision=None, sha256=None)
    assert not import_weights(target, source).fresh
    assert torch.equal(target.cls_token, weights["audio_encoder.cls_token"])


def test_feature_fusion_trains_on_two_ranks_with_activations_recomputed(corpus: Corpus) -> None:
    changes = {
        "fusion: false": "fusion: true",
        "gradient_checkpointing: false": "gradient_checkpointing: true",
    }
    folder = project(corpus, epochs=3, dropout=0.0, changes=changes)
    weights, history = train(folder, processes=2)
    assert weights["audio_encoder.patch_embed.fusion.local_attention.1.num_batches_tracked"] > 0
    assert history[["contrastive_loss", "reconstruction_loss"]].notna().all(axis=None)
    processor = FlapProcessor.from_pretrained(folder / "data/pretrain/model")
    assert processor.feature_extractor.fusion
    load_flap(folder / "data" / "pretrain" / "model")


def test_without_captions_and_reconstruction_there_is_nothing_to_learn(corpus: Corpus) -> None:
    changes = {"captions: both": "captions: none", "weight: 0.5": "weight: 0.0"}
    folder = project(corpus, epochs=1, dropout=0.0, changes=changes)
    with pytest.raises(UserError, match="captions: none trains only reconstruction; set"):
        load_section(folder / "params.yaml", "pretrain", PretrainConfig)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"{kind: 2d, time_ratio: 0.4, freq_ratio: 0.0, members: independent}": "{kind: none}"},
            "pretrain.mask: kind='none' hides none of 3 x 2 tokens",
        ),
        (
            {"tagger\n": "{source: data/pretrain/model, revision: null, sha256: null}\n"},
            "is the output of this stage",
        ),
    ],
)
def test_settings_that_contradict_each_other_are_named(
    corpus: Corpus, monkeypatch: pytest.MonkeyPatch, changes: dict[str, str], message: str
) -> None:
    monkeypatch.chdir(project(corpus, epochs=1, dropout=0.0, changes=changes))
    options = zip(ARGUMENTS[::2], ARGUMENTS[1::2], strict=True)
    with pytest.raises(UserError, match=message):
        pretrain.main(**{name.removeprefix("--"): Path(value) for name, value in options})
