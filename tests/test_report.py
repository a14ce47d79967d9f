"""The report on a small synthetic data folder: contents, escaping, same bytes, missing inputs."""

import json
import re
from collections.abc import Sequence
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from flap.core.config import read_params
from flap.core.schemas import AUDIT, CAPTIONS, CLIPS, MELS, RANKS, TAGS, TableSpec
from flap.core.shards import REJECTS_FOLDER, Row, read_table, write_rejects, write_rows
from flap.report.captions import read_captions
from flap.report.card import render_card
from flap.report.config import ReportConfig
from flap.report.distribution import Distribution
from flap.report.examples import MAX_CHARACTERS, one_line
from flap.report.facts import read_facts
from flap.report.figures import flops_chart, histogram, history_charts
from flap.report.metrics import read_flops
from flap.report.page import render
from flap.report.tables import read_dataset
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


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The page of `write_run`, rendered once: drawing its figures takes seconds."""
    return page_of(write_run(tmp_path_factory.mktemp("run")), ["demo"], ["demo-test"])


def write_run(folder: Path) -> tuple[Path, Path]:
    """(data, metrics) after all stages ran on a dataset `demo` and a benchmark `demo-test`."""
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
    direction = {
        "queries": 4,
        "candidates": 4,
        "R@1": 0.25,
        "R@5": 0.75,
        "chance": {"R@1": 0.1, "R@5": 0.5},
        "interval": {"R@1": {"low": 0.125, "high": 0.5}},
    }
    scores = {"clips": 4, "text_to_audio": direction, "audio_to_text": direction}
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
        {"benchmark": f"{name}-test", "direction": direction, "query_id": c, "clip_id": c}
        | {"rank": i, "ties": 0, "positions": [i], "candidates": 4}
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
    judged |= {"n_tokens": 6 + index, "original_coverage": 0.5, "requests": 1 + index % 2}
    writer = {"prompt_id": "few_shot-1", "model": "tiny", "revision": "1", "sampling": "{}"}
    empty: Row = {c.name: "" if c.type == pa.string() else 0 for c in CAPTIONS.columns}
    return {
        **empty,
        "clip_id": clip_id,
        "original": ATTACK,
        "tags": ["Bark", "Rain"],
        "enriched": "A dog barks in the rain.",
        "kept": kept,
        "reason": "" if kept else "low_tag_coverage",
        **judged,
        **writer,
    }


def caption_page(folder: Path, shards: Sequence[Sequence[Row]]) -> str:
    """The page of a dataset `demo` that has only CAPTIONS."""
    write_captions(folder, shards)
    return page_of((folder / "data", folder / "metrics"), ["demo"], [])


def write_captions(folder: Path, shards: Sequence[Sequence[Row]]) -> None:
    for index, rows in enumerate(shards):
        path = folder / "data" / "captions" / "demo" / f"shard-{index:05d}.parquet"
        write_rows(path, rows, CAPTIONS, {})


def page_of(folders: tuple[Path, Path], datasets: list[str], benchmarks: list[str]) -> str:
    return render(read_facts(*folders, datasets, dict.fromkeys(benchmarks, ""), CONFIG))


def test_counts_add_up_and_come_from_the_tables(folders: tuple[Path, Path]) -> None:
    dataset = read_dataset(*folders, "demo", CONFIG)
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
    assert (dataset.captions.retried, dataset.captions.retried_kept) == (5, 3)


def test_the_page_shows_scores_beside_chance(page: str) -> None:
    assert "<b>25.0 %</b><small>12.5 % to 50.0 %</small><small>chance 10.0 %</small>" in page
    assert "0.625" in page
    assert "val_loss" in page


def test_histories_of_other_runs_are_drawn_together(folders: tuple[Path, Path]) -> None:
    history = "step,loss,val_recall_at_10\n1,3.0,\n2,2.0,{}\n"
    (folders[1] / "pretrain.csv").write_text(history.format(0.5))
    assert "Beside other runs" not in page_of(folders, ["demo"], [])
    (folders[1] / "compared").mkdir()
    (folders[1] / "compared" / "no mask.csv").write_text(history.format(0.25))
    page = page_of(folders, ["demo"], [])
    assert "Beside other runs" in page
    assert "this run ends at 0.5, no mask ends at 0.25" in page


def test_a_baseline_is_named_and_makes_no_headline(folders: tuple[Path, Path], page: str) -> None:
    facts = read_facts(*folders, ["demo"], {"demo-test": "laion/clap"}, CONFIG)
    compared = render(facts)
    assert "For comparison: laion/clap" in compared
    assert '<div class="card"><b>25.0 %</b>' not in compared
    assert '<div class="card"><b>25.0 %</b>' in page


def test_the_page_shows_findings_licences_and_levels(folders: tuple[Path, Path], page: str) -> None:
    found = read_facts(*folders, ["demo"], {}, CONFIG).findings
    assert found is not None
    (leak,) = found["demo"]
    assert (leak.finding, leak.rule, leak.clips, leak.dropped) == ("leak", "origin", 5, 3)
    assert leak.examples[0] == ("demo/000", f"= other/1 (test), {ATTACK}")
    assert '<th scope="row">leak</th><td>origin</td><td class="num">5</td>' in page
    assert '<th scope="row">unknown</th><td class="num">12</td>' in page
    # 3 of 10 recordings are clipped, 2 are mostly silent; 9 have a loudness, of -21 to -29 LUFS
    cells = "".join(f'<td class="num">{cell}</td>' for cell in ("-25.0", "30.0 %", "20.0 %"))
    assert f'<th scope="row">demo</th>{cells}' in page


def test_costs_of_masks_are_shown_relative_to_no_mask(
    folders: tuple[Path, Path], page: str
) -> None:
    row = r'<th scope="row">2-D</th>' + "".join(
        rf'<td class="num">{cell}</td>' for cell in ("0.5", "64", "0.5", "25.0 %")
    )
    assert row in page
    assert '<a href="#flops">' in page
    label = "GFLOPs by ratio: 1-D ends at 1, 2-D ends at 0.5."
    assert label in flops_chart(read_flops(folders[1] / "flops.csv"))
    assert label in page


def test_text_from_data_is_escaped(page: str) -> None:
    assert "<script" not in page
    assert "<b>no header</b>" not in page
    assert "&lt;script&gt;alert(" in page


def test_the_page_is_self_contained_and_its_links_have_targets(page: str) -> None:
    assert not re.search(r"https?://|@import|src=", page)
    ids = re.findall(r'\sid="([^"]+)"', page)
    assert set(re.findall(r'href="#([^"]+)"', page)) <= set(ids)
    assert set(re.findall(r"url\(#([^)]+)\)", page)) <= set(ids)


def test_only_named_datasets_are_shown(folders: tuple[Path, Path]) -> None:
    write_tables(folders[0], "stale")
    assert page_of(folders, ["demo"], ["demo-test"]).find("stale") == -1


def test_missing_inputs_are_stated_on_the_page(tmp_path: Path) -> None:
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
    assert "no answer" in page and "Cost:" not in page
    assert "<p>Failed requests: 1</p>" in page
    assert "Histogram of words" not in page


def test_best_worst_and_random_examples_are_chosen(tmp_path: Path) -> None:
    """Ten shards of ten rows: 0 to 9 are rejected, 10 is the worst kept row, 95 to 99 tie."""
    rows = [
        caption_row(1, f"demo/{i:03d}")
        | {"tag_coverage": min(i, 95) / 100, "kept": i > 9, "reason": "" if i > 9 else "copy"}
        for i in range(100)
    ]
    rows[40] |= {"n_words": 0, "tag_coverage": 0.0, "faithfulness": 0.0}  # no answer: no score
    rows[97] |= {"original_coverage": 0.0}
    folder = tmp_path / "data" / "captions" / "demo"
    write_captions(tmp_path, [rows[i : i + 10] for i in range(0, 100, 10)])

    def ids(config: ReportConfig) -> list[list[str]]:
        found = read_captions(folder, tmp_path / "none.json", config)
        assert found is not None
        return [[row.clip_id[-3:] for row in group] for group in found.examples.values()]

    best, worst, random = ids(ReportConfig(samples=8, seed=0))
    assert best == ["097", "095", "096"] and worst == ["000", "001", "002"]
    assert len(set(random)) == 2 and random == sorted(random)
    assert ids(ReportConfig(samples=8, seed=0))[2] == random
    assert any(ids(ReportConfig(samples=8, seed=seed))[2] != random for seed in range(1, 4))
    assert [len(group) for group in ids(ReportConfig(samples=999, seed=0))] == [89, 99, 100]
    assert ids(ReportConfig(samples=0, seed=0)) == []


HOSTILE = [
    f"<b>{ATTACK}</b><!-- --></td></table></style>",
    "\"quotes\" 'and' `ticks` & &amp; &#60;script&#62;",
    "lines\nand\r\ntabs\tand \0 \x1b[31m controls \x85\u2028",
    "{{ 7 * 7 }} {% raw %} {# #} ${jinja} {0} {model}",
    "x" * 50_000,
    " " * 700 + "late",
    "犬が吠える \u202e\u0646\u0628\u0627\u062d\u200d 🐕\u200d🦺 e\u0301\ufeff",
]


@pytest.fixture(scope="module")
def harmless(tmp_path_factory: pytest.TempPathFactory) -> "Elements":
    """The page of one caption without special characters."""
    row = caption_row(1, "demo/000")
    return Elements(caption_page(tmp_path_factory.mktemp("harmless"), [[row]]))


@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_captions_do_not_break_the_page(
    tmp_path: Path, harmless: "Elements", text: str
) -> None:
    row = caption_row(1, "demo/000")
    texts = ("clip_id", "original", "enriched", "model", "sampling", "prompt_id", "revision")
    page = caption_page(tmp_path, [[row | dict.fromkeys(texts, text) | {"tags": [text, text]}]])
    found = Elements(page)
    assert found.names == harmless.names
    assert len(page) < 120_000 and "\0" not in page and "49" not in found.cells[1]
    assert found.cells[1] == found.cells[3] == one_line(text)
    assert len(one_line(text)) <= MAX_CHARACTERS


def test_long_texts_are_cut_with_an_ellipsis() -> None:
    assert one_line("y" * MAX_CHARACTERS) == "y" * MAX_CHARACTERS
    assert one_line("y" * (MAX_CHARACTERS + 1)) == "y" * (MAX_CHARACTERS - 1) + "…"
    assert one_line(" a \n b\0") == "a b"
    assert one_line(" " * 9999 + "late") == "…"


class Elements(HTMLParser):
    """The start and end tags of a page, and the cells of its table of captions."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.names: list[str] = []
        self.cells: list[str] = []
        self._is_inside = False
        self.feed(page)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.names.append(tag)
        self._is_inside |= ("class", "examples") in attrs
        if self._is_inside and tag in ("td", "code"):
            self.cells.append("")

    def handle_endtag(self, tag: str) -> None:
        self.names.append(f"/{tag}")
        self._is_inside &= tag != "table"

    def handle_data(self, data: str) -> None:
        if self.cells and self._is_inside:
            self.cells[-1] += data.removesuffix("\n")


def test_reject_rates_retries_errors_and_costs_are_shown(tmp_path: Path) -> None:
    failed = {"kept": False, "reason": "request_failed", "enriched": "", "n_words": 0}
    errors = ["", "<i>timed out</i>", "busy", "busy", "502", "503"]
    rows = [caption_row(1, f"demo/{i:03d}") for i in range(20)]
    rows += [caption_row(1, f"demo/1{e}") | failed | {"error": e} for e in errors]
    spent = {"requests": 48, "prompt_tokens": 9000, "answer_tokens": 1000}
    (tmp_path / "metrics/captions").mkdir(parents=True)
    (tmp_path / "metrics/captions/demo.json").write_text(json.dumps(spent))
    page = caption_page(tmp_path, [rows[:21], rows[21:]])
    assert '<th scope="row">request_failed</th><td class="num">6</td><td class="num">23.1 %' in page
    assert "Retried: 26 rows (100.0 %), of which 20 kept" in page
    assert "Failed requests: 6; first errors:" in page
    said = re.findall(r'<li><code dir="auto">(.*?)</code>', page)
    assert said == ["&lt;i&gt;timed out&lt;/i&gt;", "busy", "502"]
    assert "48 requests, 9,000 prompt tokens, 1,000 answer tokens." in page
    assert "Per kept caption: 500 tokens." in page
    for label in ("words", "share of tags named", "share of the original kept", "tokens"):
        assert f"Histogram of {label} over " in page


def test_texts_are_read_only_for_shown_rows(
    folders: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    read = []

    def spy(path: Path, spec: TableSpec, columns: Sequence[str]) -> pa.Table:
        read.extend(columns)
        return read_table(path, spec, columns)

    monkeypatch.setattr("flap.report.captions.read_table", spy)
    assert read_captions(folders[0] / "captions" / "demo", folders[1] / "none.json", CONFIG)
    assert not {"original", "enriched", "tags", "error"} & set(read)


def test_the_card_states_the_share_of_enriched_captions(folders: tuple[Path, Path]) -> None:
    sections = read_params(Path("params.yaml"))
    facts = read_facts(*folders, ["demo"], {}, CONFIG)
    assert "were drawn" not in render_card(facts, sections)
    sections["pretrain"]["enriched_share"] = 0.25
    assert "and enriched captions, of which 25.0 % were drawn." in render_card(facts, sections)


@given(st.lists(st.lists(st.sampled_from([0.0, 1 / 3, 0.5, 2.0, 7.0])), min_size=1))
def test_a_merged_distribution_is_that_of_all_rows(shards: list[list[float]]) -> None:
    distribution = Distribution.merged(
        [Distribution.from_column(np.array(shard, dtype=float)) for shard in shards]
    )
    rows = np.concatenate([np.array(shard, dtype=float) for shard in shards])
    assert distribution.total == len(rows)
    assert np.array_equal(np.repeat(distribution.values, distribution.rows), np.sort(rows))
    if len(rows):
        assert distribution.median == np.median(rows)
        assert distribution.mean == pytest.approx(rows.mean())


def test_a_histogram_is_weighted_by_rows() -> None:
    distribution = Distribution.from_column(np.array([1.0] * 5 + [3.0]))
    assert "over 6 captions: median 1." in histogram(distribution, "words", "captions", None)


@pytest.mark.parametrize("mfu", [0.41, None])
def test_mfu_is_drawn_if_it_is_known(mfu: float | None) -> None:
    history = pd.DataFrame({"step": [1, 2], "loss": [3.0, 2.0], "mfu": [mfu, mfu]})
    assert ("MFU" in dict(history_charts(history))) == (mfu is not None)
