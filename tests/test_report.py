"""The report on a small synthetic data folder: whole, escaped, repeatable, and with gaps."""

import json
import re
from pathlib import Path

import numpy as np
import pytest

from flap.report.config import ReportConfig
from flap.report.facts import read_facts
from flap.report.figures import flops_chart
from flap.report.metrics import flat_numbers, read_flops
from flap.report.page import render
from flap.report.tables import read_dataset
from flap.schemas import AUDIT, CAPTIONS, CLIPS, MELS, RANKS, TAGS
from flap.shards import REJECTS_FOLDER, Row, write_rejects, write_rows
from pipeline import report

CONFIG = ReportConfig(samples=6, seed=0)
FILES = ["index.html", "README.md"]
SHARD = "shard-00000.parquet"
N_CLIPS, N_BROKEN = 12, 2
FLOPS = """mask,ratio,tokens,gflops
none,0.0,256,2.0
1d,0.5,128,1.0
2d,0.25,144,1.25
2d,0.5,64,0.5
"""
ATTACK = "<script>alert('a dog barks')</script>"


@pytest.fixture
def folders(tmp_path: Path) -> tuple[Path, Path]:
    return write_run(tmp_path)


def write_run(folder: Path) -> tuple[Path, Path]:
    """(data, metrics) after a whole run on a dataset `demo` and a benchmark `demo-test`."""
    data, metrics = folder / "data", folder / "metrics"
    write_tables(data, "demo")
    write_rows(data / "audit" / SHARD, [audit_row(f"demo/{i:03d}") for i in range(5)], AUDIT, {})
    (metrics / "retrieval").mkdir(parents=True)
    (metrics / "tagger.json").write_text('{"mAP": 0.625, "per_class": {"Bark": 0.5}}')
    history = "step,loss,learning_rate,val_loss\n" + "".join(
        f"{step},{3 / step:.4f},{step / 1e4:.4f},{2.5 if step % 5 == 0 else ''}\n"
        for step in range(1, 21)
    )
    (metrics / "pretrain.csv").write_text(history)
    direction = {"R@1": 0.25, "R@5": 0.75, "chance": {"R@1": 0.1, "R@5": 0.5}}
    scores = {"clips": 4, "captions": 4, "text_to_audio": direction, "audio_to_text": direction}
    (metrics / "retrieval" / "demo-test.json").write_text(json.dumps(scores))
    (metrics / "flops.csv").write_text(FLOPS)
    return data, metrics


def write_tables(data: Path, name: str) -> None:
    clips = [f"{name}/{index:03d}" for index in range(N_CLIPS)]
    heard = clips[N_BROKEN:]
    write_rows(data / "sources" / name / SHARD, [clip_row(c, name) for c in clips], CLIPS, {})
    write_rows(
        data / "audio" / name / SHARD, [mel_row(i, c) for i, c in enumerate(heard)], MELS, {}
    )
    broken = [
        {
            "clip_id": c,
            "split": "",
            "stage": "audio",
            "reason": "unreadable",
            "detail": "<b>no header</b>",
        }
        for c in clips[:N_BROKEN]
    ]
    write_rejects(data / "audio" / name / REJECTS_FOLDER / SHARD, broken, {})
    tags = [
        {"clip_id": c, "labels": ["Bark", "Rain"][: 1 + i % 2], "scores": [0.9, 0.5][: 1 + i % 2]}
        | {"tagger_id": "t"}
        for i, c in enumerate(heard)
    ]
    write_rows(data / "tagging" / name / SHARD, tags, TAGS, {})
    captions = [caption_row(i, c) for i, c in enumerate(heard)]
    write_rows(data / "captions" / name / SHARD, captions, CAPTIONS, {})
    ranks = [
        {"benchmark": f"{name}-test", "direction": direction, "query_id": c, "rank": i, "ties": 0}
        for direction in ("text_to_audio", "audio_to_text")
        for i, c in enumerate(heard[:4], start=1)
    ]
    write_rows(data / "retrieval" / f"{name}-test" / SHARD, ranks, RANKS, {})


def clip_row(clip_id: str, dataset: str) -> Row:
    empty: Row = {"labels": [], "duration_s": None, "licence": "", "source": "", "origin": ""}
    empty |= {"offset": None, "n_bytes": None}
    return {"clip_id": clip_id, "dataset": dataset, "split": "train", "uri": "x.wav"} | {
        "captions": ["a dog barks"],
        **empty,
    }


def mel_row(index: int, clip_id: str) -> Row:
    known = {"source_rate_hz": 44100 if index % 3 else 8000, "channels": 1, "sha256": "0"}
    size = {"n_frames": 1, "mel": b"\0" * 256, "duration_s": 1.0 + index, "peak": 0.5}
    levels: Row = {"loudness_lufs": -20.0 - index if index else None}
    levels |= {"silence": 0.75 if index < 2 else 0.0, "clipping": 0.01 if index < 3 else 0.0}
    return {"clip_id": clip_id, "mel_xxh3": "0", **known, **size, **levels}


def audit_row(clip_id: str) -> Row:
    leak = {"finding": "leak", "rule": "origin", "detail": ATTACK, "dropped": clip_id > "demo/001"}
    other = {"other": "other/1", "other_dataset": "other", "other_split": "test"}
    return {"clip_id": clip_id, "dataset": "demo", "split": "train", **leak, **other}


def caption_row(index: int, clip_id: str) -> Row:
    kept = index % 3 != 0
    judged = {"n_words": 4 + index, "tag_coverage": 1.0 if kept else 0.25, "faithfulness": 0.75}
    judged["invented"] = 0.0
    writer = {"prompt_id": "few_shot-1", "model": "tiny", "revision": "1", "sampling": "{}"}
    return {
        "clip_id": clip_id,
        "original": ATTACK,
        "tags": ["Bark", "Rain"],
        "enriched": "A dog barks in the rain.",
        "kept": kept,
        "reason": "" if kept else "low_tag_coverage",
        **judged,
        **writer,
    }


def page_of(folders: tuple[Path, Path], datasets: list[str], benchmarks: list[str]) -> str:
    return render(read_facts(*folders, datasets, dict.fromkeys(benchmarks, ""), CONFIG))


def test_counts_add_up_and_come_from_the_tables(folders: tuple[Path, Path]) -> None:
    dataset = read_dataset(folders[0], "demo", CONFIG)
    counts = {c.stage: (c.rows_in, c.rows_out, c.rejected) for c in dataset.counts}
    assert counts == {
        "sources": (12, 12, 0),
        "audio": (12, 10, 2),
        "tagging": (10, 10, 0),
        "captions": (10, 6, 4),
    }
    assert all(count.adds_up for count in dataset.counts)
    assert dataset.tags == [("Bark", 10), ("Rain", 5)]
    assert dataset.licences == [("", 12)]
    assert dataset.hours == pytest.approx(sum(range(1, 11)) / 3600)
    assert dataset.captions is not None
    assert dataset.captions.reasons == [("low_tag_coverage", 4)]
    assert list(dataset.captions.samples["kept"]) == [True] * 3 + [False] * 3


def test_the_page_shows_scores_beside_chance(folders: tuple[Path, Path]) -> None:
    page = page_of(folders, ["demo"], ["demo-test"])
    assert "<b>25.0 %</b><small>chance 10.0 %</small>" in page
    assert "0.625" in page
    assert "val_loss" in page


def test_a_baseline_is_named_and_makes_no_headline(folders: tuple[Path, Path]) -> None:
    facts = read_facts(*folders, ["demo"], {"demo-test": "laion/clap"}, CONFIG)
    page = render(facts)
    assert "For comparison: laion/clap" in page
    assert '<div class="card"><b>25.0 %</b>' not in page
    assert '<div class="card"><b>25.0 %</b>' in page_of(folders, ["demo"], ["demo-test"])


def test_the_page_shows_findings_licences_and_levels(folders: tuple[Path, Path]) -> None:
    found = read_facts(*folders, ["demo"], {}, CONFIG).findings
    assert found is not None
    (leak,) = found["demo"]
    assert (leak.finding, leak.rule, leak.clips, leak.dropped) == ("leak", "origin", 5, 3)
    assert leak.examples[0] == ("demo/000", f"= other/1 (test), {ATTACK}")
    page = page_of(folders, ["demo"], [])
    assert '<th scope="row">leak</th><td>origin</td><td class="num">5</td>' in page
    assert '<th scope="row">unknown</th><td class="num">12</td>' in page
    # of 10 recordings 3 are clipped and 2 mostly silent; -21 to -29 LUFS, one too short for any
    cells = "".join(f'<td class="num">{cell}</td>' for cell in ("-25.0", "30.0 %", "20.0 %"))
    assert f'<th scope="row">demo</th>{cells}' in page


def test_what_masking_saves_is_beside_no_mask(folders: tuple[Path, Path]) -> None:
    page = page_of(folders, ["demo"], [])
    row = r'<th scope="row">2-D</th>' + "".join(
        rf'<td class="num">{cell}</td>' for cell in ("0.5", "64", "0.5", "25.0 %")
    )
    assert row in page
    assert '<a href="#flops">' in page
    label = "GFLOPs by ratio: 1-D ends at 1, 2-D ends at 0.5."
    assert label in flops_chart(read_flops(folders[1] / "flops.csv"))
    assert label in page


def test_text_from_data_is_escaped(folders: tuple[Path, Path]) -> None:
    page = page_of(folders, ["demo"], ["demo-test"])
    assert "<script" not in page
    assert "<b>no header</b>" not in page
    assert "&lt;script&gt;alert(" in page


def test_the_page_is_self_contained_and_its_links_arrive(folders: tuple[Path, Path]) -> None:
    page = page_of(folders, ["demo"], ["demo-test"])
    assert not re.search(r"https?://|@import|src=", page)
    ids = re.findall(r'\sid="([^"]+)"', page)
    assert set(re.findall(r'href="#([^"]+)"', page)) <= set(ids)
    assert set(re.findall(r"url\(#([^)]+)\)", page)) <= set(ids)


def test_only_named_datasets_count(folders: tuple[Path, Path]) -> None:
    write_tables(folders[0], "stale")
    assert page_of(folders, ["demo"], ["demo-test"]).find("stale") == -1


def test_missing_inputs_are_said_not_raised(tmp_path: Path) -> None:
    page = page_of((tmp_path / "data", tmp_path / "metrics"), ["demo"], ["demo-test"])
    for stage in (
        "sources@demo",
        "audio@demo",
        "captions@demo",
        "audit",
        "pretrain",
        "retrieval@demo-test",
    ):
        assert f"stage <code>{stage}</code> has not run" in page
    assert "What masking saves" not in page
    assert "#flops" not in page


def test_the_stage_gives_the_same_bytes_again(
    folders: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "params.yaml").write_text(Path("params.yaml").read_text())
    monkeypatch.chdir(tmp_path)
    out, card = Path("data/report/page"), Path("data/report/card")
    written = []
    for _ in range(2):
        report.main(Path("data"), Path("metrics"), out, card)
        assert [path.name for path in (*out.iterdir(), *card.iterdir())] == FILES
        written.append([(out / FILES[0]).read_bytes(), (card / FILES[1]).read_bytes()])
    assert written[0] == written[1]
    left = (path for path in Path("data/.work/report").rglob("*") if path.is_file())
    assert {path.suffix for path in left} <= {".lock"}


def test_captions_without_an_answer_and_empty_tables(folders: tuple[Path, Path]) -> None:
    row = caption_row(0, "demo/000") | {"enriched": "", "n_words": 0, "reason": "request_failed"}
    write_rows(folders[0] / "captions" / "demo" / SHARD, [row], CAPTIONS, {})
    page = page_of(folders, ["demo"], [])
    assert "no answer" in page
    assert not np.isnan([value for _, value in flat_numbers({"a": {"b": 1.0}})]).any()
