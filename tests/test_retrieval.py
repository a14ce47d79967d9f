"""Stage `retrieval`: ranks on matrices worked out by hand, scores recomputed from RANKS."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import Corpus
from hypothesis import given, settings
from hypothesis import strategies as st
from small_models import CAPTIONS, ENCODER, FUSED, TEXT

from flap.clips import usable_clips
from flap.model.flap import build_flap
from flap.model.text_encoder import build_tokenizer
from flap.retrieval import ranks as module
from flap.retrieval.benchmark import load_embedder, rank_benchmark
from flap.retrieval.config import OwnFlap
from flap.retrieval.embed import embed_captions, embed_clips
from flap.retrieval.ranks import audio_to_text_ranks, text_to_audio_ranks
from flap.retrieval.scores import chance_recall, describe, scores

# Two clips, captions 0 and 1 of the first, 2 of the second. Embeddings are rows of the
# identity on the audio side, so text rows are the scores of each caption.
AUDIO_CE = np.eye(2, dtype=np.float32)
TEXT_ME = np.array([[0.9, 0.1], [0.2, 0.8], [0.3, 0.3]], dtype=np.float32)
CLIP_M = np.array([0, 0, 1])


def test_hand_made_matrix() -> None:
    to_audio = text_to_audio_ranks(TEXT_ME, AUDIO_CE, CLIP_M)
    assert to_audio.rank.tolist() == [1, 2, 2]  # right; wrong; tied, so behind
    assert to_audio.ties.tolist() == [0, 0, 1]
    to_text = audio_to_text_ranks(AUDIO_CE, TEXT_ME, CLIP_M)
    assert to_text.rank.tolist() == [1, 2]  # 0.9 is best; 0.3 is behind 0.8
    assert to_text.ties.tolist() == [0, 0]


def test_equal_embeddings_earn_nothing() -> None:
    text, audio = np.ones((6, 3), np.float32), np.ones((3, 3), np.float32)
    clip = np.array([0, 0, 1, 1, 2, 2])
    assert text_to_audio_ranks(text, audio, clip).rank.tolist() == [3] * 6
    assert audio_to_text_ranks(audio, text, clip).rank.tolist() == [5] * 3


def test_one_clip_is_always_found() -> None:
    one = np.ones((1, 4), np.float32)
    assert text_to_audio_ranks(one, one, np.array([0])).rank.tolist() == [1]


def test_nan_and_clips_without_captions_are_refused() -> None:
    with pytest.raises(ValueError, match="NaN"):
        text_to_audio_ranks(TEXT_ME * np.nan, AUDIO_CE, CLIP_M)
    with pytest.raises(ValueError, match="no caption"):
        audio_to_text_ranks(AUDIO_CE, TEXT_ME[:2], CLIP_M[:2])


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 12), st.integers(1, 4), st.integers(0, 999))
def test_blocks_agree_with_sorting(clips: int, captions: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    audio = rng.integers(-2, 3, (clips, 3)).astype(np.float32)  # small integers: many ties
    text = rng.integers(-2, 3, (clips * captions, 3)).astype(np.float32)
    clip = np.repeat(np.arange(clips), captions)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "_BLOCK", 3)
        to_audio = text_to_audio_ranks(text, audio, clip).rank
        to_text = audio_to_text_ranks(audio, text, clip).rank
    for query in range(len(text)):
        s = text[query] @ audio.T
        assert to_audio[query] == 1 + sum(
            s[c] >= s[clip[query]] for c in range(clips) if c != clip[query]
        )
    for query in range(clips):
        s = audio[query] @ text.T
        best = max(s[clip == query])
        assert to_text[query] == 1 + sum(s[clip != query] >= best)


def table(ranks: dict[str, list[tuple[str, int, int]]]) -> pd.DataFrame:
    rows = [
        {"benchmark": "b", "direction": d, "query_id": q, "rank": r, "ties": t}
        for d, queries in ranks.items()
        for q, r, t in queries
    ]
    return pd.DataFrame(rows)


def test_scores_from_ranks() -> None:
    found = scores(
        table(
            {
                "text_to_audio": [("x#y#0", 1, 0), ("x#y#1", 3, 1), ("z#0", 2, 0), ("z#1", 6, 0)],
                "audio_to_text": [("x#y", 1, 0), ("z", 2, 0)],
            }
        ),
        (1, 5),
    )
    assert (found["clips"], found["captions"]) == (2, 4)
    to_audio = found["text_to_audio"]
    assert (to_audio["R@1"], to_audio["R@5"], to_audio["tied_queries"]) == (0.25, 0.75, 1)
    assert (to_audio["median_rank"], to_audio["mean_rank"]) == (2.5, 3.0)
    assert to_audio["chance"] == {"R@1": 0.5, "R@5": 1.0}
    assert found["audio_to_text"]["R@1"] == 0.5
    assert "2 of 3 clips present" in describe("b", found | {"clips_in_split": 3})
    assert found["audio_to_text"]["chance"]["R@1"] == pytest.approx(2 / 4)


@pytest.mark.parametrize(("right", "n", "k"), [(1, 200, 10), (5, 1000, 10), (5, 20, 18), (2, 5, 1)])
def test_chance_against_simulation(right: int, n: int, k: int) -> None:
    rng = np.random.default_rng(0)
    hits = [(rng.permutation(n)[:k] < right).any() for _ in range(4000)]
    assert chance_recall(np.array([right]), n, k) == pytest.approx(np.mean(hits), abs=0.03)


class LettersEmbedder:
    """A fake: a caption's embedding is the counts of a, b and c in it; a clip's, its captions'."""

    def __init__(self) -> None:
        self.seen: list[list[str]] = []

    def audio(self, clips: pd.DataFrame) -> torch.Tensor:
        return counts(["".join(own) for own in clips["captions"]])

    def text(self, captions: list[str]) -> torch.Tensor:
        self.seen.append(captions)
        return counts(captions)


def counts(texts: list[str]) -> torch.Tensor:
    return torch.tensor([[float(text.count(letter)) for letter in "abc"] for text in texts])


def test_captions_come_back_in_order_and_equal_ones_are_embedded_once() -> None:
    captions, embedder = ["b", "aab", "b", "c", "abc", "b"], LettersEmbedder()
    embedded = embed_captions(embedder, captions, batch=3)
    assert embedded.tolist() == counts(captions).tolist()
    assert embedder.seen == [["aab", "abc", "b"], ["c"]]


def test_a_benchmark_ranks_whatever_an_embedder_gives() -> None:
    clips = pd.DataFrame({"clip_id": ["x", "y"], "captions": [["aa", "a"], ["bb"]]})
    rows = rank_benchmark("toy", clips, LettersEmbedder(), batch=1)
    assert [row["query_id"] for row in rows] == ["x#0", "x#1", "y#0", "x", "y"]
    assert {row["rank"] for row in rows} == {1}


def test_flap_embeds_usable_clips(corpus: Corpus, tmp_path: Path) -> None:
    torch.manual_seed(0)
    build_flap(ENCODER, FUSED, with_decoder=False).save_pretrained(tmp_path / "flap")
    build_tokenizer(TEXT, CAPTIONS).save_pretrained(tmp_path / "flap")
    embedder = load_embedder("toy-val", OwnFlap(kind="flap"), tmp_path / "flap")
    clips = usable_clips(corpus.clips, corpus.mels, ["toy"], ["val"])
    assert clips["uri"][0] == "3.wav"
    whole = embed_clips(embedder, clips, batch=64)
    assert whole == pytest.approx(embed_clips(embedder, clips, batch=4), abs=1e-5)
    assert np.linalg.norm(whole, axis=1) == pytest.approx(1)
    assert len(rank_benchmark("toy-val", clips, embedder, batch=4)) == 3 * len(clips)
