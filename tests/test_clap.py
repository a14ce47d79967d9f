"""CLAP as a baseline: embeddings as in transformers, no randomness, scores as for FLAP."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
import soundfile
import soxr
import torch
from conftest import Corpus
from safetensors.torch import load_file, save_file
from small_models import TEXT as SMALL_TEXT
from transformers import ClapConfig, ClapFeatureExtractor, ClapModel, ClapProcessor

from flap.core.errors import UserError
from flap.core.schemas import RANKS, provenance
from flap.core.shards import read_folder, shard_name
from flap.model.text_encoder import build_tokenizer
from flap.retrieval.clap import ClapEmbedder, load_clap
from flap.retrieval.config import ReleasedClap
from pipeline import retrieval

RATE_HZ = 48000
WINDOW = RATE_HZ  # one second
LONG = WINDOW * 5 // 2
TEXT = SMALL_TEXT.model_copy(update={"max_tokens": 200})  # so the embedder must cut


@pytest.fixture(scope="module")
def unfused(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_clap(tmp_path_factory.mktemp("unfused"), fused=False)


@pytest.fixture(scope="module")
def fused(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_clap(tmp_path_factory.mktemp("fused"), fused=True)


@pytest.fixture(params=["unfused", "fused"])
def saved(request: pytest.FixtureRequest) -> Path:
    return request.getfixturevalue(request.param)


def make_clap(folder: Path, *, fused: bool) -> Path:
    """A folder with a tiny CLAP with a window of one second."""
    torch.manual_seed(0)
    text = {
        "vocab_size": TEXT.vocabulary,
        "hidden_size": 16,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "intermediate_size": 32,
        "max_position_embeddings": 80,  # 77 tokens, after the padding positions
    }
    audio = {
        "enable_fusion": fused,
        "num_mel_bins": 64,
        "spec_size": 128,
        "window_size": 4,
        "patch_embeds_hidden_size": 8,
        "depths": [1, 1],
        "num_attention_heads": [2, 2],
        "hidden_size": 16,
        "num_hidden_layers": 2,
    }
    # With fewer dimensions, all units after the ReLU of a random head can be 0.
    config = ClapConfig(text_config=text, audio_config=audio, projection_dim=64)
    ClapModel(config).save_pretrained(folder)
    extractor = ClapFeatureExtractor(
        max_length_s=WINDOW // RATE_HZ, truncation="fusion" if fused else "rand_trunc"
    )
    tokenizer = build_tokenizer(TEXT, ["a dog barks", "rain falls"])
    ClapProcessor(extractor, tokenizer).save_pretrained(folder)
    return folder


def embedder(folder: Path) -> ClapEmbedder:
    chosen = ReleasedClap(kind="clap", source=str(folder), revision="main")
    return ClapEmbedder(load_clap("toy-val", chosen), "toy-val", torch.device("cpu"))


def noise(n_samples: int, seed: int = 0) -> np.ndarray:
    """Noise of rising loudness, so that its parts differ."""
    rng = np.random.default_rng(seed)
    rising = rng.uniform(-1, 1, n_samples) * np.linspace(0.01, 1, n_samples) ** 2
    return rising.astype(np.float32)


def write(folder: Path, *recordings: tuple[np.ndarray, int]) -> pd.DataFrame:
    """The columns of `usable_clips` that CLAP needs; the recordings are written into `folder`."""
    paths = [folder / f"{i}.wav" for i in range(len(recordings))]
    for path, (samples, rate_hz) in zip(paths, recordings, strict=True):
        soundfile.write(path, samples, rate_hz, subtype="FLOAT")
    return pd.DataFrame({"uri": [str(path) for path in paths]})


@torch.inference_mode()
def direct(folder: Path, samples: np.ndarray) -> torch.Tensor:
    """Embedding (E,) by transformers alone of a clip that fits the window.

    With a longer clip in the batch, the extractor does not mark ours as the longer one.
    """
    processor = ClapProcessor.from_pretrained(folder)
    features = processor.feature_extractor(
        [samples, noise(LONG)], sampling_rate=RATE_HZ, return_tensors="pt"
    )
    return ClapModel.from_pretrained(folder).eval().get_audio_features(**features).pooler_output[0]


@torch.inference_mode()
def audio(model: ClapEmbedder, clips: pd.DataFrame) -> torch.Tensor:
    return model.audio(clips)


@pytest.mark.parametrize("rate_hz", [RATE_HZ, 16000, 44100])
def test_a_short_clip_is_embedded_as_by_transformers(
    saved: Path, tmp_path: Path, rate_hz: int
) -> None:
    samples = noise(rate_hz // 3)
    (embedded,) = audio(embedder(saved), write(tmp_path, (samples, rate_hz)))
    if rate_hz != RATE_HZ:
        samples = soxr.resample(samples, rate_hz, RATE_HZ, quality="HQ")
    torch.testing.assert_close(embedded, direct(saved, samples))
    assert embedded.norm() == pytest.approx(1)


def test_without_fusion_a_long_clip_is_its_middle(unfused: Path, tmp_path: Path) -> None:
    samples = noise(LONG)
    (embedded,) = audio(embedder(unfused), write(tmp_path, (samples, RATE_HZ)))
    middle = samples[(LONG - WINDOW) // 2 :][:WINDOW]
    torch.testing.assert_close(embedded, direct(unfused, middle))


def test_with_fusion_less_than_a_hop_makes_no_clip_longer(fused: Path, tmp_path: Path) -> None:
    samples = noise(WINDOW + 100)
    (embedded,) = audio(embedder(fused), write(tmp_path, (samples, RATE_HZ)))
    torch.testing.assert_close(embedded, direct(fused, samples))


def test_embeddings_are_not_random(saved: Path, tmp_path: Path) -> None:
    """They depend neither on the run nor on the batch; numpy's global generator keeps its state."""
    model = embedder(saved)
    lengths = [LONG, WINDOW // 2, LONG + 4800, WINDOW]
    clips = write(tmp_path, *[(noise(n, seed=n), RATE_HZ) for n in lengths])
    np.random.seed(1)
    first = audio(model, clips)
    follows = np.random.random()
    assert torch.equal(audio(model, clips), first)
    assert torch.equal(audio(embedder(saved), clips), first)
    np.random.seed(1)
    assert np.random.random() == follows
    alone = torch.cat([audio(model, clips[i : i + 1]) for i in range(len(clips))])
    torch.testing.assert_close(alone, first)
    assert len(first.unique(dim=0)) == len(lengths)


@torch.inference_mode()
def test_captions_are_cut_and_embedded_as_by_transformers(saved: Path) -> None:
    captions = ["a dog barks", "rain falls", "rain falls on the dog " * 30]
    embedded = embedder(saved).text(captions)
    tokenizer = ClapProcessor.from_pretrained(saved).tokenizer
    model = ClapModel.from_pretrained(saved).eval()
    for caption, ours in zip(captions, embedded, strict=True):
        tokens = tokenizer([caption], truncation=True, max_length=77, return_tensors="pt")
        (theirs,) = model.get_text_features(**tokens).pooler_output
        torch.testing.assert_close(ours, theirs)
        assert ours.norm() == pytest.approx(1)


def test_a_benchmark_of_clap_end_to_end(
    saved: Path, corpus: Corpus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for i in range(3, 30, 5):  # split val
        rate_hz = (8000, 44100, 48000)[i % 3]
        soundfile.write(f"{i}.wav", noise(rate_hz * i // 10, seed=i), rate_hz)
    model = f"{{kind: clap, source: {saved}, revision: main}}"
    Path("params.yaml").write_text(
        "retrieval: {batch: 4, recall_at: [1, 5], long_clips: middle, positives: own, "
        "resamples: 9, seed: 0}\n"
        f"benchmarks: {{toy-clap: {{task: retrieval, dataset: toy, split: val, model: {model}}}}}\n"
    )
    out, metrics = corpus.data / "retrieval" / "toy-clap", tmp_path / "toy-clap.json"
    retrieval.main("toy-clap", corpus.clips, corpus.mels, tmp_path / "no-flap", out, metrics)
    ranks = read_folder(out, RANKS)
    assert ranks["direction"].value_counts().to_dict() == {"text_to_audio": 12, "audio_to_text": 6}
    scored = {"kind": "clap", "source": str(saved), "revision": "main"}
    assert provenance(pq.read_schema(out / shard_name(0)))["model"] == scored
    assert json.loads(metrics.read_text())["model"] == scored


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"\.toy-val\.model\.source: .* is not a directory"):
        embedder(tmp_path / "nowhere")


def test_an_incomplete_clap_is_named(saved: Path, tmp_path: Path) -> None:
    for file in saved.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    weights = tmp_path / "model.safetensors"
    tensors = load_file(weights)
    del tensors["text_projection.linear1.weight"]
    save_file(tensors, weights, {"format": "pt"})
    with pytest.raises(UserError, match=r"such as text_projection\.linear1\.weight"):
        embedder(tmp_path)
    weights.rename(tmp_path / "pytorch_model.bin")  # pickles are not read
    with pytest.raises(UserError, match=r"model\.source: the directory .* cannot be loaded"):
        embedder(tmp_path)


def test_a_recording_lost_since_the_audio_stage_is_named(saved: Path, tmp_path: Path) -> None:
    model, clips = embedder(saved), write(tmp_path, *[(noise(4800), RATE_HZ)] * 2)
    lost, broken = map(Path, clips["uri"])
    lost.unlink()
    broken.write_bytes(b"no sound")
    for i, path in enumerate((lost, broken)):
        with pytest.raises(UserError, match=rf"benchmarks\.toy-val: {path}: .* run `dvc repro`"):
            audio(model, clips[i : i + 1])
