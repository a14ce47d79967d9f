"""Stage `audit`: its findings on small tables, and the clips that training leaves out."""

import json
from pathlib import Path

import pandas as pd
import pytest
from conftest import Corpus

from flap.audit.clips import read_clips
from flap.audit.config import AuditConfig
from flap.audit.findings import find_problems
from flap.audit.summary import FINDINGS, metrics, summary_lines
from flap.core.errors import UserError
from flap.core.schemas import AUDIT, AUDIT_FINDINGS, CLIPS, MELS
from flap.core.shards import read_table, write_rows
from flap.mels.clips import dropped_clips, usable_clips
from flap.pretrain.pairs import training_clips
from pipeline import audit

CONFIG = AuditConfig(drop_leaks=True, drop_duplicates=True, max_caption_words=10)
SHARD = "shard-00000.parquet"


def clip(name: str, split: str, **known: object) -> dict[str, object]:
    """Row of `read_clips` with a unique recording, changed by `known`."""
    row = {"clip_id": name, "dataset": name[0], "split": split, "licence": "CC0"}
    row |= {"origin": "", "sha256": name, "mel_xxh3": name}
    return row | {"captions": 1, "longest": 0, "words": 5} | known


def findings(*rows: dict[str, object], config: AuditConfig = CONFIG) -> list[tuple[object, ...]]:
    columns = ["clip_id", "finding", "rule", "other", "detail", "dropped"]
    found = find_problems(pd.DataFrame(list(rows)), config)[columns]
    return list(found.itertuples(index=False, name=None))


def test_distinct_clips_give_no_finding() -> None:
    assert findings(clip("a/1", "train"), clip("a/2", "val"), clip("b/1", "test")) == []


@pytest.mark.parametrize("other", ["a/2", "b/2"])
@pytest.mark.parametrize(
    ("key", "detail"), [("sha256", "equal bytes"), ("mel_xxh3", "equal log-mels")]
)
def test_equal_content_is_a_duplicate_within_and_across_corpora(
    key: str, detail: str, other: str
) -> None:
    found = findings(clip("a/1", "train", **{key: "x"}), clip(other, "train", **{key: "x"}))
    assert found == [(other, "duplicate", "content", "a/1", detail, True)]


def test_equal_origin_is_a_duplicate_only_across_corpora() -> None:
    upload = {"origin": "freesound:1"}
    inside = [clip("a/1", "train", **upload), clip("a/2", "train", **upload)]
    assert findings(*inside) == []
    across = findings(*inside, clip("b/1", "train", **upload), clip("b/2", "train", **upload))
    assert across == [
        (name, "duplicate", "origin", "a/1", "freesound:1", True) for name in ("b/1", "b/2")
    ]


def test_a_leak_by_content_takes_precedence_over_a_leak_by_origin() -> None:
    found = findings(
        clip("a/1", "test", origin="youtube:x"),
        clip("a/2", "train", origin="youtube:x", sha256="same"),
        clip("b/1", "val", sha256="same"),
    )
    assert found == [("a/2", "leak", "content", "b/1", "equal bytes", True)]


@pytest.mark.parametrize("other", ["a/2", "b/2"])
def test_equal_origin_is_a_leak_within_and_across_corpora(other: str) -> None:
    upload = {"origin": "youtube:x"}
    found = findings(clip("a/1", "train", **upload), clip(other, "test", **upload))
    assert found == [("a/1", "leak", "origin", other, "youtube:x", True)]


def test_a_val_clip_in_test_is_a_duplicate_and_is_not_dropped() -> None:
    found = findings(clip("a/1", "val", sha256="x"), clip("b/1", "test", sha256="x"))
    assert found == [("b/1", "duplicate", "content", "a/1", "equal bytes", False)]


def test_each_copy_names_the_first_copy() -> None:
    found = findings(*(clip(f"a/{i}", "train", mel_xxh3="x") for i in range(3)))
    assert [(row[0], row[3]) for row in found] == [("a/1", "a/0"), ("a/2", "a/0")]


def test_copies_that_leak_are_not_listed_as_duplicates() -> None:
    copies = [clip(f"a/{i}", "train", sha256="x") for i in range(2)]
    copies += [clip("b/1", "val", sha256="x"), clip("b/2", "test", sha256="x")]
    found = findings(*copies)
    assert [row[:4] for row in found] == [
        ("a/0", "leak", "content", "b/1"),
        ("a/1", "leak", "content", "b/1"),
        ("b/2", "duplicate", "content", "b/1"),
    ]


def test_a_copy_of_a_leak_is_a_leak() -> None:
    upload = {"origin": "youtube:1"}
    found = findings(
        clip("a/1", "test", **upload),
        clip("b/1", "train", **upload, mel_xxh3="m"),
        clip("c/1", "train", mel_xxh3="m"),
        clip("c/2", "train"),
    )
    assert found == [
        ("b/1", "leak", "origin", "a/1", "youtube:1", True),
        ("c/1", "leak", "content", "b/1", "equal log-mels", True),
    ]


def test_without_the_switches_nothing_is_dropped() -> None:
    config = CONFIG.model_copy(update={"drop_leaks": False, "drop_duplicates": False})
    rows = [clip(f"a/{i}", "train", sha256=key) for i, key in enumerate("xyy")]
    found = findings(*rows, clip("a/9", "test", sha256="x"), config=config)
    assert [(row[1], row[5]) for row in found] == [("leak", False), ("duplicate", False)]


def test_missing_and_long_captions_are_findings() -> None:
    found = findings(
        clip("a/1", "train", captions=0, words=0),
        clip("a/2", "test", captions=3, longest=2, words=11),
        clip("a/3", "test", words=10),
    )
    assert found == [
        ("a/1", "no_caption", "", "", "", False),
        ("a/2", "long_caption", "", "", "caption #2: 11 words", False),
    ]


def test_metrics_count_by_corpus_and_pair_and_lines_give_advice() -> None:
    clips = [clip("a/1", "train", sha256="x"), clip("b/1", "test", sha256="x")]
    clips += [clip(f"b/n{i:02d}", "train", licence=f"by {i:02d}") for i in range(12)]
    frame = pd.DataFrame(clips)
    found = find_problems(frame, CONFIG)
    counts = metrics(frame, found)
    assert counts["leaks"] == {"a -> b": 1} and counts["duplicates"] == {}
    assert (counts["clips"], counts["leak"], counts["dropped"]) == (14, 1, 1)
    assert counts["datasets"]["a"]["licences"] == {"CC0": 1}
    assert counts["datasets"]["b"]["licences"]["others"] == 3
    assert (counts["datasets"]["a"]["leak"], counts["datasets"]["b"]["leak"]) == (1, 0)
    lines = list(summary_lines(counts, found, CONFIG))
    assert lines[0].startswith("a: 1 clips; 1 leaks, 0 duplicates")
    assert lines[2:] == [
        "1 leaks: training leaves them out, because audit.drop_leaks is true",
        "  a/1 (train) = b/1 (test), equal bytes",
    ]
    assert set(FINDINGS) == AUDIT_FINDINGS


def change(folder: Path, table: str, number: int, **values: object) -> None:
    """Change one row of the first shard of the fixture's CLIPS or MELS."""
    spec = {"sources": CLIPS, "audio": MELS}[table]
    path = folder / table / "toy" / SHARD
    rows = read_table(path, spec).to_pylist()
    rows[number] |= values
    write_rows(path, rows, spec, {})


def test_captions_are_counted_from_the_table(corpus: Corpus) -> None:
    change(corpus.data, "sources", 0, captions=[])
    change(corpus.data, "sources", 1, captions=["one two", " one  two three ", "a b c"])
    found = read_clips(corpus.clips, corpus.mels, ["toy"]).set_index("clip_id")
    columns = ["captions", "longest", "words"]
    assert found.loc[["toy/0", "toy/1"], columns].to_numpy().tolist() == [[0, 0, 0], [3, 1, 3]]
    assert len(found) == 30


def run_stage(corpus: Corpus, *, drop_leaks: bool, monkeypatch: pytest.MonkeyPatch) -> pd.DataFrame:
    """Run the stage on the fixture's tables, in which clip 0 (train) equals clip 3 (val)."""
    change(corpus.data, "audio", 3, mel_xxh3="0")
    toy = {"adapter": "audiocaps", "path": "toy", "watch": "toy", "captions": "required"}
    section = {"drop_leaks": drop_leaks, "drop_duplicates": False, "max_caption_words": 10}
    monkeypatch.chdir(corpus.data.parent)
    Path("params.yaml").write_text(json.dumps({"audit": section, "datasets": {"toy": toy}}))
    audit.main(corpus.clips, corpus.mels, corpus.audit, Path("metrics/audit.json"))
    return read_table(corpus.audit / SHARD, AUDIT).to_pandas()


@pytest.mark.parametrize("drop_leaks", [True, False])
def test_training_leaves_out_what_the_stage_drops(
    corpus: Corpus,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    drop_leaks: bool,
) -> None:
    table = run_stage(corpus, drop_leaks=drop_leaks, monkeypatch=monkeypatch)
    assert table[["clip_id", "finding", "other"]].to_numpy().tolist() == [
        ["toy/0", "leak", "toy/3"]
    ]
    assert json.loads(Path("metrics/audit.json").read_text())["leaks"] == {"toy -> toy": 1}
    assert "audit: 1 leaks: " in capsys.readouterr().out

    dropped = dropped_clips(corpus.audit)
    assert dropped == ({"toy/0"} if drop_leaks else set())
    heard = usable_clips(corpus.clips, corpus.mels, ["toy"], ["train"], dropped)
    pairs = training_clips(corpus.clips, corpus.mels, corpus.captions, ["toy"], "both", dropped)
    for found in (heard, pairs):
        assert len(found) == 18 - drop_leaks
        assert ("toy/0" in set(found["clip_id"])) != drop_leaks
        assert list(found.index) == list(range(len(found)))
    assert "toy/3" in set(usable_clips(corpus.clips, corpus.mels, ["toy"], ["val"])["clip_id"])


def test_the_error_for_an_empty_training_set_names_the_audit(corpus: Corpus) -> None:
    everything = {f"toy/{i}" for i in range(30)}
    with pytest.raises(UserError, match="30 clips left out by the audit"):
        usable_clips(corpus.clips, corpus.mels, ["toy"], ["train"], everything)
