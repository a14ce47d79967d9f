"""The model card: its contents, and that it shows text from data literally."""

import json
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import ModelCard
from hypothesis import given
from hypothesis import strategies as st
from markdown_it import MarkdownIt
from test_report import CONFIG, SHARD, clip_row, write_run

from flap.core.config import read_params
from flap.core.schemas import CLIPS
from flap.core.shards import write_rows
from flap.report.card import MAX_LICENCES, render_card
from flap.report.facts import read_facts
from flap.report.markdown import fenced, inline

ROOT = Path(__file__).parents[1]
MARKDOWN = MarkdownIt("commonmark").enable("table")
ATTACK = (
    "CC|BY</td><script>alert(1)</script>\n\n# `x` **b** [y](javascript:z) &amp; $e$ _f_ \\| \u202e"
)
OURS, CLAP = "demo-test", "demo-test-clap"
BENCHMARKS = {
    OURS: {"task": "retrieval", "dataset": "demo", "split": "test", "model": {"kind": "flap"}},
    CLAP: {
        "task": "retrieval",
        "dataset": "demo",
        "split": "test",
        "model": {"kind": "clap", "source": "laion/x"},
    },
}
HUB = {"source": "hf://owner/audio-mae", "revision": "abc", "sha256": None}


@pytest.fixture
def folders(tmp_path: Path) -> tuple[Path, Path]:
    """(data, metrics) after a whole run with a baseline beside."""
    data, metrics = write_run(tmp_path)
    scores = json.loads((metrics / "retrieval" / f"{OURS}.json").read_text())
    scores["text_to_audio"] |= {"R@1": 0.125}
    (metrics / "retrieval" / f"{CLAP}.json").write_text(json.dumps(scores))
    return data, metrics


def sections(**changes: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Those of params.yaml with some values changed."""
    found = read_params(ROOT / "params.yaml")
    found = {name: section | changes.get(name, {}) for name, section in found.items()}
    return found | {"benchmarks": BENCHMARKS}


def card_of(folders: tuple[Path, Path], **changes: dict[str, Any]) -> str:
    facts = read_facts(*folders, ["demo"], {OURS: "", CLAP: "laion/x (clap)"}, CONFIG)
    return render_card(facts, sections(**changes))


def texts(markdown: str) -> list[str]:
    """The text of each cell and paragraph; asserts that all of it is plain text."""
    inlines = [token for token in MARKDOWN.parse(markdown) if token.type == "inline"]
    pieces = [piece for token in inlines for piece in token.children or []]
    assert {piece.type for piece in pieces} <= {"text", "text_special"}
    return ["".join(piece.content for piece in token.children or []) for token in inlines]


def shown(text: str) -> str:
    return " ".join("".join(c if c.isprintable() else " " for c in text).split())


@given(st.text() | st.text("|`<>&*_[]()#@$\\!~-ab \n"))
def test_any_text_is_shown_literally_in_a_cell_and_in_a_sentence(text: str) -> None:
    cell, after = texts(f"| a | b |\n|---|---|\n| {inline(text)} | after |")[2:]
    assert (" ".join(cell.split()), after) == (shown(text), "after")
    assert [" ".join(line.split()) for line in texts(f"So: {inline(text)}.")] == [
        shown(f"So: {text}.")
    ]


@given(st.text("`~\n a"))
def test_no_text_ends_its_code_block(text: str) -> None:
    (token,) = MARKDOWN.parse(fenced(text, "yaml"))
    assert token.type == "fence"
    assert token.content.rstrip() == text.rstrip()


def test_metadata_holds_our_scores_and_no_baseline(folders: tuple[Path, Path]) -> None:
    data = ModelCard(card_of(folders)).data
    assert (data.license, data.model_name) == ("other", "FLAP")
    assert [(r.task_type, r.metric_name, r.metric_value) for r in data.eval_results] == [
        ("text-to-audio-retrieval", "R@1", 0.25),
        ("text-to-audio-retrieval", "R@5", 0.75),
        ("audio-to-text-retrieval", "R@1", 0.25),
        ("audio-to-text-retrieval", "R@5", 0.75),
    ]
    assert {(r.dataset_name, r.dataset_split) for r in data.eval_results} == {("demo", "test")}


def test_the_table_holds_every_score_beside_chance(folders: tuple[Path, Path]) -> None:
    card = card_of(folders)
    assert "| demo-test | this one | text → audio | 4 | 25.0 % (10.0 %) | 75.0 % (50.0 %) |" in card
    assert "| demo-test-clap | laion/x (clap) | text → audio | 4 | 12.5 % (10.0 %) |" in card


def test_data_training_and_terms_are_stated(folders: tuple[Path, Path]) -> None:
    card = card_of(folders)
    assert "| demo | demo | 12 | 0 | 0 | 0.0 | 6 of 10 |" in card
    assert "| demo | unknown | 12 |" in card
    assert "Trained for 20 steps; the loss on validation clips was 2.5 at step 20." in card
    assert "gemma-3-270m: Gemma Terms of Use, https://ai.google.dev/gemma/terms." in card
    assert "Trained only on the demo corpus" in card


def test_licences_can_neither_break_the_table_nor_inject(folders: tuple[Path, Path]) -> None:
    rows = [clip_row(f"demo/{i:03d}", "demo") | {"licence": ATTACK} for i in range(3)]
    rows += [clip_row(f"demo/1{i:02d}", "demo") | {"licence": f"by {i}"} for i in range(30)]
    write_rows(folders[0] / "sources" / "demo" / SHARD, rows, CLIPS, {})
    card = card_of(folders, llm={"licence": ATTACK, "name": ATTACK})
    html = MARKDOWN.render(card)
    assert "<script" not in html and 'href="javascript' not in html
    tokens = [token for token in MARKDOWN.parse(card) if token.type == "inline"]
    cells = ["".join(p.content for p in token.children or []) for token in tokens]
    position = [" ".join(cell.split()) for cell in cells].index(shown(ATTACK))
    assert (cells[position - 1], cells[position + 1]) == ("demo", "3")
    assert f"| demo | {31 - MAX_LICENCES} others | {31 - MAX_LICENCES} |" in card
    assert ModelCard(card).data.license == "other"


@pytest.mark.parametrize(
    ("pretrain", "tagger", "said", "base"),
    [
        ("scratch", None, "audio encoder started from random weights.", None),
        ("tagger", None, "30 epochs on the labels of the clips, from random weights.", None),
        ("tagger", HUB, "from hf://owner/audio-mae, revision abc.", ["owner/audio-mae"]),
        (HUB, None, "started from hf://owner/audio-mae, revision abc.", ["owner/audio-mae"]),
    ],
)
def test_the_audio_encoders_starting_weights_are_named(
    folders: tuple[Path, Path], pretrain: Any, tagger: Any, said: str, base: list[str] | None
) -> None:
    card = card_of(folders, pretrain={"audio_weights": pretrain}, tagger={"weights": tagger})
    assert said in card
    assert ModelCard(card).data.base_model == base


def test_paths_on_the_users_disk_stay_private(folders: tuple[Path, Path]) -> None:
    weights = HUB | {"source": "/home/someone/secret/mae.pth"}
    text = {"kind": "pretrained", "source": "/home/someone/roberta", "revision": "main"}
    card = card_of(
        folders,
        pretrain={"audio_weights": weights},
        model={"text": text | {"pooling": "mean", "max_tokens": 77}},
        llm={"kind": "local", "source": "/home/someone/llm"},
    )
    assert "someone" not in card
    assert "mae.pth" in card and "roberta" in card


def test_without_enriched_captions_no_language_model_is_named(
    folders: tuple[Path, Path],
) -> None:
    card = card_of(folders, pretrain={"captions": "original"})
    assert "gemma" not in card
    alone = card_of(folders, pretrain={"captions": "none"})
    assert "by reconstruction only" in alone


@pytest.mark.parametrize("name", ["params.yaml", "params.paper.yaml"])
def test_the_card_repeats_the_parameters_without_results(name: str, tmp_path: Path) -> None:
    params = read_params(ROOT / name)
    benchmarks = dict.fromkeys(params["benchmarks"], "")
    facts = read_facts(tmp_path, tmp_path, list(params["datasets"]), benchmarks, CONFIG)
    card = render_card(facts, params)
    (fence,) = [token for token in MARKDOWN.parse(card) if token.info == "yaml"]
    (tmp_path / "again.yaml").write_text(fence.content)
    again = read_params(tmp_path / "again.yaml")
    assert again == {section: params[section] for section in ("encoder", "model", "pretrain")}
    assert "Not measured yet." in card
    data = ModelCard(card).data
    assert data.eval_results is None
    if name == "params.paper.yaml":
        assert data.base_model[1] == "roberta-base"
        assert "Trained only on the demo corpus" not in card
