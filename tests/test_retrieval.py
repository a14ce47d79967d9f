"""Stage `retrieval`: ranks of small matrices checked by hand, and scores recomputed from RANKS."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import Corpus
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.sparse import csr_array
from small_models import CAPTIONS, ENCODER, FUSED, TEXT

from flap.core.config import load_section
from flap.core.errors import UserError
from flap.mels.clips import usable_clips
from flap.mels.reader import MelReader
from flap.model.flap import build_flap
from flap.model.saved import load_flap
from flap.model.text_encoder import build_tokenizer
from flap.model.windows import covering_windows, middle_windows
from flap.retrieval import ranks as module
from flap.retrieval.audio_text import rank_retrieval
from flap.retrieval.benchmark import rank_benchmark, read_clips
from flap.retrieval.bootstrap import intervals
from flap.retrieval.compare import compare
from flap.retrieval.config import (
    BenchmarksConfig,
    LinearProbeTask,
    OwnFlap,
    RandomModel,
    RetrievalConfig,
    SavedModel,
    ZeroShotTask,
)
from flap.retrieval.embed import FlapEmbedder, embed_captions, embed_clips
from flap.retrieval.models import RandomEmbedder, load_embedder
from flap.retrieval.positives import own_captions, shared_captions
from flap.retrieval.ranks import QueryRanks, rank_right_answers, rank_scores
from flap.retrieval.scores import chance_recall, describe, query_scores, scores
from pipeline import retrieval as stage

CONFIG = RetrievalConfig(
    batch=4,
    recall_at=(1, 5),
    long_clips="middle",
    positives="own",
    resamples=200,
    seed=0,
)
MODEL = OwnFlap(kind="flap")

# Two clips: captions 0 and 1 belong to the first, caption 2 to the second. The clips' embeddings
# are rows of the identity matrix, so a row of TEXT_ME holds a caption's scores.
AUDIO_CE = np.eye(2, dtype=np.float32)
TEXT_ME = np.array([[0.9, 0.1], [0.2, 0.8], [0.3, 0.3]], dtype=np.float32)
OWN_CM = own_captions([["", ""], [""]])
OWN_MC = csr_array(OWN_CM.T)


def test_ranks_of_a_small_matrix() -> None:
    to_audio = rank_right_answers(TEXT_ME, AUDIO_CE, OWN_MC)
    assert to_audio.rank_Q.tolist() == [1, 2, 2]  # best; second; tied with a wrong answer
    assert to_audio.ties_Q.tolist() == [0, 0, 1]
    to_text = rank_right_answers(AUDIO_CE, TEXT_ME, OWN_CM)
    assert [own.tolist() for own in to_text.positions()] == [[1, 3], [2]]  # scores 0.9 and 0.2; 0.8
    assert to_text.rank_Q.tolist() == [1, 2]
    assert to_text.ties_Q.tolist() == [0, 0]


def test_right_answers_stand_behind_equal_wrong_ones() -> None:
    text, audio = np.ones((6, 3), np.float32), np.ones((3, 3), np.float32)
    own = own_captions([["", ""]] * 3)
    assert rank_right_answers(text, audio, csr_array(own.T)).rank_Q.tolist() == [3] * 6
    to_text = rank_right_answers(audio, text, own)
    assert [own.tolist() for own in to_text.positions()] == [[5, 6]] * 3
    assert to_text.ties_Q.tolist() == [4] * 3


def test_a_single_candidate_is_ranked_first() -> None:
    one = np.ones((1, 4), np.float32)
    assert rank_right_answers(one, one, own_captions([["a"]])).rank_Q.tolist() == [1]


def test_nan_and_queries_without_right_answers_are_errors() -> None:
    with pytest.raises(ValueError, match="NaN"):
        rank_right_answers(TEXT_ME * np.nan, AUDIO_CE, OWN_MC)
    with pytest.raises(ValueError, match="NaN"):
        rank_scores(TEXT_ME * np.nan, OWN_MC)
    with pytest.raises(ValueError, match="no right answer"):
        rank_right_answers(AUDIO_CE, TEXT_ME, own_captions([["", "", ""], []]))


def naive(scores_QX: np.ndarray, right_QX: np.ndarray) -> tuple[list[list[int]], list[int]]:
    """Positions and ties by sorting: by score, then wrong before right, then by index."""
    positions, ties = [], []
    for row, right in zip(scores_QX, right_QX, strict=True):
        order = sorted(range(len(row)), key=lambda x: (-row[x], right[x], x))
        positions.append([order.index(x) + 1 for x in np.flatnonzero(right)])
        ties.append(int((row[~right] == row[right].max()).sum()))
    return positions, ties


def as_lists(ranks: QueryRanks) -> tuple[list[list[int]], list[int]]:
    return [own.tolist() for own in ranks.positions()], ranks.ties_Q.tolist()


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 12), st.integers(1, 40), st.integers(0, 999), st.integers(1, 5))
def test_blocks_agree_with_sorting(queries: int, candidates: int, seed: int, width: int) -> None:
    rng = np.random.default_rng(seed)
    # Small integers give many ties, and products without rounding errors.
    query_QE = rng.integers(-2, 3, (queries, 3)).astype(np.float32)
    candidate_XE = rng.integers(-2, 3, (candidates, 3)).astype(np.float32)
    right_QX = rng.random((queries, candidates)) < 0.2
    right_QX[np.arange(queries), rng.integers(candidates, size=queries)] = True
    scores_QX = query_QE @ candidate_XE.T
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(module._TILE, "cpu", (3, width))
        found = rank_right_answers(query_QE, candidate_XE, csr_array(right_QX))
    assert as_lists(found) == naive(scores_QX, right_QX)
    assert as_lists(rank_scores(scores_QX, csr_array(right_QX))) == naive(scores_QX, right_QX)


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 999), st.integers(3, 70))
def test_equal_embeddings_tie_wherever_they_stand(seed: int, width: int) -> None:
    rng = np.random.default_rng(seed)
    query_QE = rng.standard_normal((20, 48)).astype(np.float32)
    candidate_XE = rng.standard_normal((100, 48)).astype(np.float32)
    copies = rng.integers(100, size=(40, 2))
    candidate_XE[copies[:, 0]] = right_E = rng.standard_normal(48).astype(np.float32)
    right_QX = np.zeros((20, 100), bool)
    right_QX[:, copies[0, 0]] = True
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(module._TILE, "cpu", (8, width))
        found = rank_right_answers(query_QE, candidate_XE, csr_array(right_QX))
    same = (candidate_XE == right_E).all(axis=1).sum()
    assert found.ties_Q.tolist() == [same - 1] * 20


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_gpu_gives_the_ranks_of_the_cpu() -> None:
    rng = np.random.default_rng(0)
    text_ME = rng.integers(-3, 4, (500, 16)).astype(np.float32)
    audio_CE, own = (
        rng.integers(-3, 4, (100, 16)).astype(np.float32),
        own_captions([[""] * 5] * 100),
    )
    on_gpu = rank_right_answers(audio_CE, text_ME, own, torch.device("cuda"))
    assert as_lists(on_gpu) == as_lists(rank_right_answers(audio_CE, text_ME, own))


def test_clips_that_share_a_caption_share_right_answers() -> None:
    captions = [["A dog barks.", "It barks"], ["a  dog BARKS"], ["Rain", "It barks"], ["Bell"]]
    assert own_captions(captions).toarray().tolist() == [
        [True, True, False, False, False, False],
        [False, False, True, False, False, False],
        [False, False, False, True, True, False],
        [False, False, False, False, False, True],
    ]
    assert shared_captions(captions).toarray().tolist() == [
        [True, True, True, True, True, False],
        [True, True, True, False, False, False],
        [True, True, False, True, True, False],
        [False, False, False, False, False, True],
    ]


def test_the_clip_of_an_equal_caption_is_a_right_answer() -> None:
    clips = pd.DataFrame({"clip_id": ["x", "y", "z"], "captions": [["a"], ["a"], ["b"]]})
    own, shared = (
        pd.DataFrame(
            rank_retrieval("toy", clips, LettersEmbedder(), CONFIG.model_copy(update=change))
        ).set_index(["direction", "query_id"])["rank"]
        for change in ({"positives": "own"}, {"positives": "shared"})
    )
    assert own["text_to_audio"].tolist() == [2, 2, 1]
    assert shared["text_to_audio"].tolist() == [1, 1, 1]


def table(ranks: dict[str, list[tuple[str, str, list[int], int]]], candidates: int) -> pd.DataFrame:
    """RANKS of queries (query_id, clip_id, positions, ties)."""
    rows = [
        {
            "benchmark": "b",
            "direction": direction,
            "query_id": query,
            "clip_id": clip,
            "rank": min(positions),
            "ties": ties,
            "positions": np.array(positions, np.int32),
            "candidates": candidates,
        }
        for direction, queries in ranks.items()
        for query, clip, positions, ties in queries
    ]
    return pd.DataFrame(rows)


TO_AUDIO = [("x#0", "x", [1], 0), ("x#1", "x", [3], 1), ("z#0", "z", [2], 0), ("z#1", "z", [6], 0)]


def test_scores_from_ranks() -> None:
    ranks = table({"text_to_audio": TO_AUDIO, "audio_to_text": [("x", "x", [1, 4], 0)]}, 8)
    found = scores(ranks, (1, 5), resamples=50, seed=0)
    assert found["clips"] == 2
    to_audio = found["text_to_audio"]
    assert (to_audio["R@1"], to_audio["R@5"], to_audio["tied_queries"]) == (0.25, 0.75, 1)
    assert (to_audio["median_rank"], to_audio["mean_rank"]) == (2.5, 3.0)
    assert to_audio["mAP@10"] == pytest.approx((1 + 1 / 3 + 1 / 2 + 1 / 6) / 4)
    assert to_audio["chance"] == {"R@1": 1 / 8, "R@5": pytest.approx(5 / 8)}
    assert found["audio_to_text"]["chance"]["R@1"] == pytest.approx(2 / 8)
    assert "2 of 3 clips present" in describe("b", found | {"clips_in_split": 3})


def test_the_hash_of_the_clips_depends_on_the_set_of_clips() -> None:
    hashes = {
        scores(table({"text_to_audio": rows}, 8), (1,), resamples=1, seed=0)["clips_sha256"]
        for rows in (TO_AUDIO, TO_AUDIO[::-1], TO_AUDIO[:2])
    }
    assert len(hashes) == 2


@pytest.mark.parametrize(
    ("positions", "sorted_map", "ls_clap"),
    [
        ([1, 2, 3, 4, 5], 1.0, 1.0),
        ([5, 4, 3, 2, 1], 1.0, 1.74),  # a perfect result has 1.74 in LS-CLAP's convention
        ([2, 11, 4, 30, 12], (1 / 2 + 2 / 4) / 5, (1 / 2 + 2 / 4) / 5),
        ([20, 30, 40, 50, 60], 0.0, 0.0),
    ],
)
def test_average_precision_in_both_conventions(
    positions: list[int], sorted_map: float, ls_clap: float
) -> None:
    ranks = table({"audio_to_text": [("a", "a", positions, 0), ("b", "b", positions, 0)]}, 60)
    found = query_scores(ranks, (1,))
    assert found["mAP@10"].tolist() == pytest.approx([sorted_map] * 2)
    assert found["mAP@10_ls_clap"].tolist() == pytest.approx([ls_clap] * 2)


def ls_clap_recalls(audio_CE: np.ndarray, text_ME: np.ndarray) -> dict[str, float]:
    """R@k as in LS-CLAP's evaluation: five captions per clip, by sorting all scores.

    Text to audio: for j = 0…4, caption j of every clip is a query over the clips. Audio to text:
    the best position of the clip's five captions counts.
    """
    clips, found = len(audio_CE), {}
    to_text = np.argsort(-(audio_CE @ text_ME.T), axis=1)
    best = [
        min(int(np.where(to_text[clip] == 5 * clip + j)[0][0]) for j in range(5))
        for clip in range(clips)
    ]
    positions = []
    for j in range(5):
        to_audio = np.argsort(-(text_ME[j::5] @ audio_CE.T), axis=1)
        positions += [int(np.where(to_audio[clip] == clip)[0][0]) for clip in range(clips)]
    for k in (1, 5, 10):
        found[f"text_to_audio R@{k}"] = float(np.mean(np.array(positions) < k))
        found[f"audio_to_text R@{k}"] = float(np.mean(np.array(best) < k))
    return found


@pytest.mark.parametrize("seed", range(3))
def test_recalls_match_ls_claps_evaluation(seed: int) -> None:
    rng = np.random.default_rng(seed)
    audio_CE = rng.standard_normal((120, 16)).astype(np.float32)
    text_ME = np.repeat(audio_CE, 5, axis=0) + 2 * rng.standard_normal((600, 16)).astype(np.float32)
    own = own_captions([[""] * 5] * 120)
    to_audio = rank_right_answers(text_ME, audio_CE, csr_array(own.T)).rank_Q
    to_text = rank_right_answers(audio_CE, text_ME, own).rank_Q
    expected = ls_clap_recalls(audio_CE, text_ME)
    for k in (1, 5, 10):
        assert (to_audio <= k).mean() == expected[f"text_to_audio R@{k}"]
        assert (to_text <= k).mean() == expected[f"audio_to_text R@{k}"]


def test_95_percent_intervals_cover_the_truth_in_95_percent_of_trials() -> None:
    rng, covered = np.random.default_rng(0), 0
    clip_ids = pd.Series(np.repeat(np.arange(150), 5))
    for trial in range(100):
        easy_C = rng.random(150) < 0.3  # the five queries of a clip succeed or fail together
        values = pd.DataFrame({"R@1": np.repeat(easy_C, 5).astype(float)})
        span = intervals(values, clip_ids, resamples=200, seed=trial)["R@1"]
        covered += span["low"] <= 0.3 <= span["high"]
    assert 88 <= covered <= 100  # resampling queries instead of clips would cover about 60


def test_paired_differences_have_narrow_intervals() -> None:
    rng = np.random.default_rng(0)
    ranks = rng.integers(1, 10, 400)
    rows = [(f"{i}#0", str(i), [int(rank)], 0) for i, rank in enumerate(ranks)]
    better = [(*row[:2], [max(1, row[2][0] - 1)], 0) for row in rows]
    one, other = (table({"text_to_audio": r}, 50) for r in (better[::-1], rows))
    found = compare(one, other, (1, 5), resamples=200, seed=0).loc[("text_to_audio", "R@5")]
    assert found["difference"] == pytest.approx((ranks == 6).mean())
    assert 0 < found["low"] < found["difference"] < found["high"]
    with pytest.raises(UserError, match="different queries"):
        compare(one, other[:-1], (1,), resamples=1, seed=0)


@pytest.mark.parametrize(("right", "n", "k"), [(1, 200, 10), (5, 1000, 10), (5, 20, 18), (2, 5, 1)])
def test_chance_against_simulation(right: int, n: int, k: int) -> None:
    rng = np.random.default_rng(0)
    hits = [(rng.permutation(n)[:k] < right).any() for _ in range(4000)]
    assert chance_recall(np.array([right]), n, k) == pytest.approx(np.mean(hits), abs=0.03)


class LettersEmbedder:
    """A fake: a text's embedding is its counts of a, b and c; a clip's, those of its captions."""

    def __init__(self) -> None:
        self.seen: list[list[str]] = []

    def audio(self, clips: pd.DataFrame) -> torch.Tensor:
        return counts(["".join(own) for own in clips["captions"]])

    def text(self, captions: list[str]) -> torch.Tensor:
        self.seen.append(captions)
        return counts(captions)


def counts(texts: list[str]) -> torch.Tensor:
    return torch.tensor([[float(text.count(letter)) for letter in "abc"] for text in texts])


def test_equal_captions_are_embedded_once_and_the_order_is_kept() -> None:
    captions, embedder = ["b", "aab", "b", "c", "abc", "b"], LettersEmbedder()
    embedded = embed_captions(embedder, captions, batch=3)
    assert embedded.tolist() == counts(captions).tolist()
    assert embedder.seen == [["aab", "abc", "b"], ["c"]]


def test_retrieval_leaves_out_clips_without_captions() -> None:
    clips = pd.DataFrame({"clip_id": ["x", "y", "mute"], "captions": [["aa", "a"], ["bb"], []]})
    rows = list(rank_retrieval("toy", clips, LettersEmbedder(), CONFIG))
    assert [row["query_id"] for row in rows] == ["x#0", "x#1", "y#0", "x", "y"]
    assert [row["clip_id"] for row in rows] == ["x", "x", "y", "x", "y"]
    assert {row["rank"] for row in rows} == {1}
    with pytest.raises(UserError, match=r"benchmarks\.toy: no clip has a caption"):
        next(rank_retrieval("toy", clips[2:], LettersEmbedder(), CONFIG))


def classes(**captions: str) -> pd.DataFrame:
    """Clips by name with these letters as captions, and the letters in upper case as labels."""
    return pd.DataFrame(
        {
            "clip_id": list(captions),
            "split": ["train" if name.startswith("train") else "test" for name in captions],
            "captions": [[text] for text in captions.values()],
            "labels": [[letter.upper() for letter in dict.fromkeys(t)] for t in captions.values()],
        }
    )


def test_zero_shot_ranks_classes_by_their_prompts() -> None:
    task = ZeroShotTask(
        task="zero_shot",
        dataset="toy",
        split="test",
        templates=("{label}", "{label}!"),
        model=MODEL,
    )
    corpus = classes(train1="c", one="a", two="ab", none="")
    rows = list(rank_benchmark("toy", task, corpus, LettersEmbedder(), CONFIG))
    assert [(row["query_id"], row["candidates"]) for row in rows] == [("one", 3), ("two", 3)]
    assert [row["positions"] for row in rows] == [[1], [1, 2]]
    assert {row["direction"] for row in rows} == {"audio_to_class"}
    with pytest.raises(UserError, match="no clip of split test has a label"):
        list(rank_benchmark("toy", task, corpus[:1], LettersEmbedder(), CONFIG))


def test_a_linear_probe_learns_classes() -> None:
    task = LinearProbeTask(
        task="linear_probe",
        dataset="toy",
        split="test",
        train_split="train",
        inverse_regularisation=1.0,
        max_iterations=100,
        model=MODEL,
    )
    training = {f"train{i}": text for i, text in enumerate(["a", "aa", "b", "bb", "ab", "c", "cc"])}
    corpus = classes(**training, one="aaa", two="bc", unknown="d")
    rows = list(rank_benchmark("toy", task, corpus, LettersEmbedder(), CONFIG))
    assert [(row["query_id"], row["candidates"]) for row in rows] == [("one", 3), ("two", 3)]
    assert [sorted(row["positions"]) for row in rows] == [[1], [1, 2]]


def test_templates_must_contain_the_label(tmp_path: Path) -> None:
    params = tmp_path / "params.yaml"
    params.write_text(
        "benchmarks: {b: {task: zero_shot, dataset: d, split: test, templates: [the sound], "
        "model: {kind: flap}}}"
    )
    with pytest.raises(UserError, match="label"):
        load_section(params, "benchmarks", BenchmarksConfig)


def test_random_embeddings_score_at_chance_level() -> None:
    names = [f"clip{i}" for i in range(400)]
    clips = pd.DataFrame(
        {"clip_id": names, "captions": [[f"{n} {j}" for j in "abc"] for n in names]}
    )
    ranks = pd.DataFrame(rank_retrieval("toy", clips, RandomEmbedder(0), CONFIG))
    found = scores(ranks, (10, 50), resamples=50, seed=0)
    for direction in ("text_to_audio", "audio_to_text"):
        assert found[direction]["R@50"] == pytest.approx(
            found[direction]["chance"]["R@50"], abs=0.05
        )


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    torch.manual_seed(0)
    build_flap(ENCODER, FUSED, with_decoder=False).save_pretrained(tmp_path / "flap")
    build_tokenizer(TEXT, CAPTIONS).save_pretrained(tmp_path / "flap")
    return tmp_path / "flap"


def test_flap_embeds_usable_clips(corpus: Corpus, saved: Path, tmp_path: Path) -> None:
    embedder = load_embedder("toy-val", MODEL, saved, CONFIG)
    clips = usable_clips(corpus.clips, corpus.mels, ["toy"], ["val"])
    assert clips["uri"][0] == "3.wav"
    whole = embed_clips(embedder, clips, batch=64)
    assert whole == pytest.approx(embed_clips(embedder, clips, batch=4), abs=1e-5)
    assert np.linalg.norm(whole, axis=1) == pytest.approx(1)
    named = load_embedder("b", SavedModel(kind="saved", source=str(saved)), tmp_path, CONFIG)
    assert whole == pytest.approx(embed_clips(named, clips, batch=64))


def test_pooled_is_the_mean_over_windows(corpus: Corpus, saved: Path) -> None:
    short = ENCODER.model_copy(update={"clip_frames": 32})
    build_flap(short, FUSED, with_decoder=False).save_pretrained(saved)
    pooling = CONFIG.model_copy(update={"long_clips": "pooled"})
    embedder = load_embedder("b", MODEL, saved, pooling)
    clips = usable_clips(corpus.clips, corpus.mels, ["toy"], ["val"])
    assert isinstance(embedder, FlapEmbedder)
    for mel_TF, embedded in zip(
        MelReader().read_all(clips), embed_clips(embedder, clips, 4), strict=True
    ):
        ends = [len(mel_TF)] if len(mel_TF) <= 32 else [32, len(mel_TF)]
        windows = middle_windows([mel_TF[max(0, end - 32) : end] for end in ends], 32, fusion=True)
        with torch.no_grad():
            each = load_flap(saved).model.get_audio_features(windows.mel_BCTF, windows.longer_B)
        mean = each.pooler_output.mean(dim=0)
        assert embedded == pytest.approx((mean / mean.norm()).numpy(), abs=1e-5)


@pytest.mark.parametrize(("frames", "windows"), [(5, 1), (64, 1), (65, 2), (128, 2), (150, 3)])
def test_pooled_windows_cover_every_frame(frames: int, windows: int) -> None:
    mel_TF = np.arange(1, frames + 1, dtype=np.float16)[:, None].repeat(2, axis=1)
    windows_BCTF = covering_windows(mel_TF, 64, fusion=False).mel_BCTF
    assert len(windows_BCTF) == windows
    assert set(windows_BCTF.flatten().tolist()) - {0.0} == set(range(1, frames + 1))


def test_metrics_agree_with_ranks_recomputed_by_pandas(
    corpus: Corpus, saved: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "params.yaml").write_text(
        json.dumps(
            {
                "retrieval": CONFIG.model_dump(mode="json"),
                "benchmarks": {
                    "toy-val": {
                        "task": "retrieval",
                        "dataset": "toy",
                        "split": "val",
                        "model": {"kind": "flap"},
                    }
                },
            }
        )
    )
    monkeypatch.chdir(tmp_path)
    out, metrics = tmp_path / "data/retrieval/toy-val", tmp_path / "toy-val.json"
    stage.main("toy-val", corpus.clips, corpus.mels, saved, out, metrics)
    found, ranks = json.loads(metrics.read_text()), pd.read_parquet(out)
    assert found["clips_in_split"] == found["clips"] == 6
    for direction, rows in ranks.groupby("direction"):
        assert found[direction]["R@1"] == pytest.approx((rows["rank"] == 1).mean(), abs=1e-6)
        assert found[direction]["median_rank"] == rows["rank"].median()
        assert found[direction]["mean_rank"] == pytest.approx(rows["rank"].mean(), abs=1e-6)
        assert rows["rank"].equals(rows["positions"].map(min).astype("int32"))
        precision = rows["positions"].map(
            lambda own: sum((i + 1) / p for i, p in enumerate(sorted(own)) if p <= 10) / len(own)
        )
        assert found[direction]["mAP@10"] == pytest.approx(precision.mean(), abs=1e-6)
        interval = found[direction]["interval"]["R@1"]
        assert interval["low"] <= found[direction]["R@1"] <= interval["high"]


def test_a_benchmark_reads_the_clips_it_needs(corpus: Corpus) -> None:
    fields = {"dataset": "toy", "split": "test", "model": RandomModel(kind="random", seed=0)}
    probe = LinearProbeTask(
        task="linear_probe",
        train_split="train",
        inverse_regularisation=1.0,
        max_iterations=9,
        **fields,
    )
    assert set(read_clips(probe, corpus.clips, corpus.mels)["split"]) == {"train", "val", "test"}
