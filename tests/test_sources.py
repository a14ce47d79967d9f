"""Stage `sources`: the folder adapter, AudioSet names, configuration, and the command."""

import csv
import json
from collections.abc import Sequence
from pathlib import Path

import pandas as pd
import pytest

from flap.core.audioset import ALIASES_FILE, display_names, find_class
from flap.core.config import load_section
from flap.core.errors import UserError
from flap.core.schemas import CLIPS, REJECTS
from flap.core.shards import Row, read_folder, read_table
from flap.core.text import normalised_caption
from flap.mels.clips import count_described
from flap.sources.adapters import read_corpus
from flap.sources.config import DatasetsConfig, DrawnSplits, FolderDataset, SplitFractions
from flap.sources.corpus import CorpusRows, write_corpus
from flap.sources.files import CorpusFiles
from flap.sources.folder import table_name
from flap.sources.record import AdapterOutput
from flap.sources.splits import draw_splits
from pipeline import sources as stage

FRACTIONS = SplitFractions(train=0.6, val=0.2, test=0.2)
_ODD_NAMES = ("a.wav", "a.flac", "a.wav.mp3", "b.v1.wav")
DRAWN = DrawnSplits(seed=1, fractions=FRACTIONS)


def make_folder(folder: Path, rows: Sequence[Row], present: Sequence[str] | None = None) -> Path:
    """A folder with captions.csv and an empty file for each recording that is `present`."""
    folder.mkdir(parents=True, exist_ok=True)
    pd.DataFrame(list(rows)).to_csv(folder / "captions.csv", index=False)
    for name in present if present is not None else [str(row["file_name"]) for row in rows]:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    return folder


def config(path: Path, seed: int = 1, **changes: str) -> FolderDataset:
    entry = {"adapter": "folder", "path": str(path), "watch": "", "captions": "required"}
    splits = DrawnSplits(seed=seed, fractions=FRACTIONS)
    return FolderDataset.model_validate(entry | {"splits": splits} | changes)


def read(dataset: str, config: FolderDataset) -> CorpusRows:
    return read_corpus(dataset, config, AdapterOutput(Path("work"), Path("out")))


def test_golden_row(tmp_path: Path) -> None:
    row = {
        "file_name": "a/dog.wav",
        "caption_1": "A dog  barks ",
        "caption_2": "",
        "caption_3": "Barking",
        "labels": "dog; sea_waves;wasp;My label;",
        "split": "Validation",
        "licence": "CC0 1.0",
        "source": "me",
        "duration_s": "2.5",
        "freesound_id": "17.0",
        "mood": "calm",
    }
    corpus = read("zoo", config(make_folder(tmp_path / "zoo", [row])))
    assert corpus.clips == [
        {
            "clip_id": "zoo/a/dog",
            "dataset": "zoo",
            "split": "val",
            "uri": f"{tmp_path.as_posix()}/zoo/a/dog.wav",
            "offset": None,
            "n_bytes": None,
            "captions": ["A dog barks", "Barking"],
            "labels": ["Dog", "Waves, surf", "Bee, wasp, etc.", "My label"],
            "duration_s": 2.5,
            "licence": "CC0 1.0",
            "source": "me",
            "origin": "freesound:17",
        }
    ]
    assert corpus.rejects == []
    assert corpus.notes == [
        "ignored columns: mood",
        "val: 1 of 1 clips present",
        "1 labels are no AudioSet class and are kept as they are: 'My label'",
    ]


def test_a_relative_path_stays_relative(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_folder(tmp_path / "zoo", [{"file_name": "a.wav", "caption": "x"}])
    (tmp_path / "project").mkdir()
    monkeypatch.chdir(tmp_path / "project")
    assert read("zoo", config(Path("../zoo"))).clips[0]["uri"] == "../zoo/a.wav"


def test_every_bad_row_is_a_reject_with_its_reason(tmp_path: Path) -> None:
    folder = tmp_path / "zoo"
    (tmp_path / "secret.wav").touch()
    folder.mkdir()
    (folder / "link.wav").symlink_to(tmp_path / "secret.wav")
    bad = [
        ("good.wav", "again", "train", "duplicate"),
        ("./good.wav", "again", "train", "duplicate"),
        ("silent.wav", "  ", "train", "no_caption"),
        ("split.wav", "x", "holdout", "bad_split"),
        ("nosplit.wav", "x", "", "bad_split"),
        ("../secret.wav", "x", "train", "outside"),
        (str(tmp_path / "secret.wav"), "x", "train", "outside"),
        ("link.wav", "x", "train", "outside"),
        ("gone.wav", "x", "train", "missing"),
        ("", "x", "train", "missing"),
    ]
    rows = [{"file_name": "good.wav", "caption": "A good one", "split": "test"}]
    rows += [{"file_name": name, "caption": text, "split": split} for name, text, split, _ in bad]
    present = ["good.wav", "silent.wav", "split.wav", "nosplit.wav"]
    corpus = read("zoo", config(make_folder(folder, rows, present)))
    assert [row["reason"] for row in corpus.rejects] == [reason for *_, reason in bad]
    assert [row["clip_id"] for row in corpus.clips] == ["zoo/good"]
    assert corpus.n_rows == len(corpus.clips) + len(corpus.rejects) == 11
    assert corpus.rejects[3]["detail"].startswith("line 6: 'holdout' is none of dev, develop")


def test_rows_of_one_recording_are_one_clip(tmp_path: Path) -> None:
    rows = [("a.wav", "One", "train"), ("b.wav", "x", "train"), ("a.wav", "Two", "train")]
    rows += [("b.wav", "y", "test"), ("b.wav", "z", "test"), ("gone.wav", "x", "test")]
    table = [dict(zip(("file_name", "caption", "split"), row, strict=True)) for row in rows]
    folder = make_folder(tmp_path / "zoo", table, ["a.wav", "b.wav"])
    corpus = read("zoo", config(folder))
    clips = [(row["clip_id"], row["split"], row["captions"]) for row in corpus.clips]
    assert clips == [("zoo/a", "train", ["One", "Two"]), ("zoo/b", "test", ["y", "z"])]
    details = [row["detail"] for row in corpus.rejects if row["reason"] == "duplicate"]
    assert details == [
        "line 3: 'b.wav' again; line 5 has it in split test",
        "line 4: 'a.wav' again; its captions were added to line 2",
        "line 6: 'b.wav' again; its captions were added to line 5",
    ]
    assert corpus.notes[:2] == ["train: 1 of 1 clips present", "test: 1 of 2 clips present"]
    write_corpus(corpus, config(folder), 50, tmp_path / "out")
    assert [count_described(tmp_path / "out", s) for s in ("train", "val", "test")] == [1, 0, 2]


@pytest.mark.parametrize("junk", ["Not found", "nan", "N/A", "-1", "1.5"])
def test_an_invalid_id_gives_no_origin(tmp_path: Path, junk: str) -> None:
    rows = [{"file_name": f"{i}.wav", "caption": str(i), "freesound_id": junk} for i in range(3)]
    for row in rows:
        row["youtube_id"] = junk
    corpus = read("zoo", config(make_folder(tmp_path, rows)))
    assert [row["origin"] for row in corpus.clips] == ["", "", ""]


def test_null_is_no_caption(tmp_path: Path) -> None:
    (tmp_path / "a.wav").touch()
    (tmp_path / "b.wav").touch()
    rows = [
        {"file_name": "a.wav", "captions": ["A dog", None], "labels": [None], "source": None},
        {"file_name": "b.wav", "captions": [None], "labels": None, "source": "x"},
    ]
    pd.DataFrame(rows).to_parquet(tmp_path / "TABLE.PARQUET")
    corpus = read("zoo", config(tmp_path))
    (clip,) = corpus.clips
    assert (clip["captions"], clip["labels"], clip["source"]) == (["A dog"], [], "")
    assert [row["reason"] for row in corpus.rejects] == ["no_caption"]


def test_shards_of_a_killed_run_are_removed(tmp_path: Path) -> None:
    rows = [{"file_name": f"{i}.wav", "caption": str(i)} for i in range(9)]
    before = read("zoo", config(make_folder(tmp_path / "zoo", rows)))
    write_corpus(before, config(tmp_path), 2, tmp_path / "out")
    after = read("zoo", config(make_folder(tmp_path / "zoo", rows[:3])))
    write_corpus(after, config(tmp_path), 2, tmp_path / "out")
    assert len(read_folder(tmp_path / "out", CLIPS)) == 3


def test_a_note_names_links_to_folders(tmp_path: Path) -> None:
    folder = make_folder(tmp_path / "zoo", [{"file_name": "a.wav", "caption": "x"}])
    (folder / "audio").symlink_to(tmp_path)
    assert "links to folders are not followed: audio" in read("zoo", config(folder)).notes[-1]


def test_clip_ids_keep_the_extension_if_names_are_equal_without_it(tmp_path: Path) -> None:
    rows = [{"file_name": name, "caption": name} for name in _ODD_NAMES]
    corpus = read("zoo", config(make_folder(tmp_path, rows)))
    names = {"zoo/a.wav", "zoo/a.flac", "zoo/a.wav.mp3", "zoo/b.v1"}
    assert {row["clip_id"] for row in corpus.clips} == names


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("file,caption\na.wav,x\n", "column 'file_name' is missing; add it.*found: file, caption"),
        ("file_name,text\na.wav,x\n", "column 'caption' is missing; add it, or caption_1"),
        ("file_name,Caption\n", "column 'Caption': write it 'caption'"),
        ("file_name,caption\n", "no usable row among 0; the table has no rows"),
        ("file_name,caption\na.wav,one, two\n", "line 2 has 3 fields, the header 2.*quotes"),
        ("", "is empty"),
        ("file_name,caption,caption\n", "column 'caption' is there more than once"),
        ("file_name,caption\ngone.wav,x\n", "no usable row among 1; 1 missing; first: line 2"),
        ('file_name,caption\n"a.wav,x\n', "line 2: unexpected end of data"),
    ],
)
def test_the_error_for_a_malformed_csv_names_the_fault(
    tmp_path: Path, text: str, message: str
) -> None:
    (tmp_path / "captions.csv").write_text(text)
    with pytest.raises(UserError, match=f"{tmp_path}.*: {message}"):
        read("zoo", config(tmp_path))


def test_a_list_written_as_text_is_an_error(tmp_path: Path) -> None:
    folder = make_folder(tmp_path, [{"file_name": "a.wav", "captions": ["A dog", "Barking"]}])
    with pytest.raises(UserError, match="line 2: 'captions' holds a list written as text"):
        read("zoo", config(folder))


def test_a_csv_from_a_spreadsheet(tmp_path: Path) -> None:
    (tmp_path / "a.wav").touch()
    (tmp_path / "captions.csv").write_bytes(
        "file_name,caption\r\na.wav,Né\r\n\r\n".encode("utf-8-sig")
    )
    assert read("zoo", config(tmp_path)).clips[0]["captions"] == ["Né"]
    (tmp_path / "captions.csv").write_bytes("file_name,caption\na.wav,Né\n".encode("latin-1"))
    with pytest.raises(UserError, match="not UTF-8"):
        read("zoo", config(tmp_path))


def test_the_table_is_captions_csv_or_the_only_table(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="found no table"):
        table_name(CorpusFiles(str(tmp_path)))
    (tmp_path / "one.parquet").touch()
    assert table_name(CorpusFiles(str(tmp_path))) == "one.parquet"
    (tmp_path / "two.csv").touch()
    with pytest.raises(UserError, match=r"found one\.parquet, two\.csv"):
        table_name(CorpusFiles(str(tmp_path)))
    (tmp_path / "captions.csv").touch()
    assert table_name(CorpusFiles(str(tmp_path))) == "captions.csv"
    for path in (tmp_path / "captions.csv", tmp_path / "three"):
        with pytest.raises(UserError, match="no such folder"):
            read("zoo", config(path))


def test_a_parquet_table_is_read_like_a_csv(tmp_path: Path) -> None:
    row = {
        "file_name": "a.wav",
        "captions": ["A dog  barks ", "", "Barking"],
        "labels": ["dog", "rain"],
        "split": "train",
        "duration_s": 2.5,
        "freesound_id": 17,
        "licence": None,
    }
    (tmp_path / "a.wav").touch()
    pd.DataFrame([row]).to_parquet(tmp_path / "table.parquet")
    (clip,) = read("zoo", config(tmp_path)).clips
    assert (clip["captions"], clip["labels"]) == (["A dog barks", "Barking"], ["Dog", "Rain"])
    assert (clip["duration_s"], clip["origin"], clip["licence"]) == (2.5, "freesound:17", "")
    (tmp_path / "table.parquet").write_bytes(b"PAR1 no more")
    with pytest.raises(UserError, match=r"table\.parquet: not a readable Parquet file"):
        read("zoo", config(tmp_path))


def test_optional_captions_may_be_missing(tmp_path: Path) -> None:
    make_folder(tmp_path, [{"file_name": "a.wav"}, {"file_name": "b.wav"}])
    with pytest.raises(UserError, match=r"caption' is missing.*set the dataset's captions to opt"):
        read("zoo", config(tmp_path))
    corpus = read("zoo", config(tmp_path, captions="optional"))
    assert [row["captions"] for row in corpus.clips] == [[], []]


def test_added_rows_do_not_change_earlier_rows(tmp_path: Path) -> None:
    rows = [{"file_name": f"{i}.wav", "caption": f"caption {i}"} for i in range(30)]
    before = read("zoo", config(make_folder(tmp_path, rows[:20]))).clips
    after = read("zoo", config(make_folder(tmp_path, rows))).clips
    assert after[:20] == before
    assert len({row["split"] for row in after}) == 3


def test_odd_names_and_texts(tmp_path: Path) -> None:
    names = ["🐕 barks.wav", "two\nlines.wav", "loop.wav", "folder.flac", "späte Straße.wav"]
    rows = [{"file_name": name, "caption": f"<b>{{x}} {name}"} for name in names]
    make_folder(tmp_path, rows, [names[0], names[1], names[4]])
    (tmp_path / "loop.wav").symlink_to(tmp_path / "loop.wav")
    (tmp_path / "folder.flac").mkdir()
    corpus = read("zoo", config(tmp_path))  # unreadable files are rejected by stage `audio`
    assert [row["uri"] for row in corpus.clips] == [f"{tmp_path}/{name}" for name in names]
    assert corpus.clips[0]["captions"] == ["<b>{x} 🐕 barks.wav"]


def test_splits_are_deterministic_and_near_the_fractions() -> None:
    captions = [[f"caption {i}"] for i in range(2000)]
    splits = draw_splits(captions, DRAWN)
    assert splits == draw_splits(captions, DRAWN)
    assert splits != draw_splits(captions, DrawnSplits(seed=2, fractions=FRACTIONS))
    assert splits[:100] == draw_splits(captions[:100], DRAWN)
    for split in ("train", "val", "test"):
        assert splits.count(split) / 2000 == pytest.approx(getattr(FRACTIONS, split), abs=0.04)


def test_captions_are_normalised_by_one_rule() -> None:
    equal = ("A dog  barks", "a dog barks.", "A Dog barks .", " a dog barks!")
    assert {normalised_caption(caption) for caption in equal} == {"a dog barks"}
    splits = draw_splits([[equal[i % 4], f"clip {i}"] for i in range(100)], DRAWN)
    assert len(set(splits)) == 1


def test_no_caption_is_in_two_splits() -> None:
    # Clip i shares one caption with clip i+1 within each chain of four.
    captions = [
        [f"chain {i // 4} link {i % 4}", f"Chain {i // 4} LINK {i % 4 + 1}."] for i in range(400)
    ]
    splits = draw_splits(captions, DRAWN)
    chains = [set(splits[start : start + 4]) for start in range(0, 400, 4)]
    assert all(len(chain) == 1 for chain in chains)
    assert set.union(*chains) == {"train", "val", "test"}


def test_a_fraction_of_zero_gets_nothing() -> None:
    only_train = SplitFractions(train=1.0, val=0.0, test=0.0)
    drawn = DrawnSplits(seed=1, fractions=only_train)
    assert set(draw_splits([[str(i)] for i in range(50)], drawn)) == {"train"}


def test_written_shards(tmp_path: Path) -> None:
    splits = ["test", "train", "val", "train", "dev", "eval", "development"]
    rows = [
        {"file_name": f"{i}.wav", "caption": f"c{i}", "split": split}
        for i, split in enumerate(splits)
    ]
    rows.append({"file_name": "gone.wav", "caption": "x", "split": "train"})
    folder = make_folder(tmp_path / "zoo", rows, [f"{i}.wav" for i in range(7)])
    corpus = read("zoo", config(folder))
    write_corpus(corpus, config(folder), 3, tmp_path / "out")
    clips = read_folder(tmp_path / "out", CLIPS)
    assert clips["clip_id"].tolist() == [f"zoo/{i}" for i in range(7)]
    assert len(list((tmp_path / "out").glob("shard-*.parquet"))) == 3
    rejects = read_table(tmp_path / "out/_rejects/shard-00000.parquet", REJECTS)
    assert rejects.to_pylist() == corpus.rejects


def test_aliases_and_synonyms() -> None:
    with ALIASES_FILE.open(newline="") as file:
        aliases = {row["alias"]: row["display_name"] for row in csv.DictReader(file)}
    assert len(aliases) == 50
    assert set(aliases.values()) <= set(display_names())
    for alias, name in aliases.items():
        assert find_class(alias) == name
    assert len(display_names()) == 527
    assert all(find_class(name) == name for name in display_names())
    assert find_class("CAR HORN") == find_class("honking") == "Vehicle horn, car horn, honking"
    assert find_class("snake_oil") is find_class("etc.") is find_class("") is None


def write_params(folder: Path, datasets: Row) -> None:
    # JSON is YAML.
    params = {"datasets": datasets, "sources": {"shard_clips": 2}}
    (folder / "params.yaml").write_text(json.dumps(params))


UNEVEN = {"seed": 1, "fractions": {"train": 0.8, "val": 0.1, "test": 0.2}}


def folder_entry(**changes: object) -> Row:
    splits = {"seed": 1, "fractions": {"train": 0.8, "val": 0.1, "test": 0.1}}
    entry = {"adapter": "folder", "path": "zoo", "watch": "zoo", "captions": "required"}
    return entry | {"splits": splits} | changes


@pytest.mark.parametrize(
    ("name", "entry", "message"),
    [
        ("zoo", folder_entry(splits=UNEVEN), "must sum to 1"),
        ("zoo", folder_entry(colour="red"), "unknown key 'datasets.zoo.*colour'"),
        ("zoo", folder_entry(adapter="tape"), "'tape'"),
        ("zoo", {"adapter": "demo", "path": "x", "seed": 1}, "datasets.zoo.*clips' is missing"),
        ("My Zoo", folder_entry(), "should match pattern"),
    ],
)
def test_the_error_names_a_wrong_parameter(
    tmp_path: Path, name: str, entry: Row, message: str
) -> None:
    write_params(tmp_path, {name: entry})
    with pytest.raises(UserError, match=message):
        load_section(tmp_path / "params.yaml", "datasets", DatasetsConfig)


def test_command_reads_a_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [{"file_name": f"{i}.wav", "caption": f"c{i}"} for i in range(5)]
    make_folder(tmp_path / "zoo", rows, [f"{i}.wav" for i in range(4)])
    write_params(tmp_path, {"zoo": folder_entry()})
    monkeypatch.chdir(tmp_path)
    stage.main("zoo", Path("data/sources/zoo"))
    assert "sources: 5 in = 4 out + 1 rejected" in capsys.readouterr().out
    assert len(read_folder(Path("data/sources/zoo"), CLIPS)) == 4
    with pytest.raises(UserError, match="no dataset 'sea'; there are: zoo"):
        stage.main("sea", Path("data/sources/sea"))


DEMO = {"adapter": "demo", "watch": "", "seed": 1}


def test_command_makes_the_demo(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    catalogue = Path("flap/sources/demo/sounds.yaml").resolve()
    clips = {"train": 3, "val": 1, "test": 1}
    write_params(tmp_path, {"demo": DEMO | {"path": str(catalogue), "clips": clips}})
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("FLAP_JOBS", "1")
    stage.main("demo", Path("data/sources/demo"))
    assert "sources: 5 in = 5 out + 0 rejected" in capsys.readouterr().out
    clips_table = read_folder(Path("data/sources/demo"), CLIPS)
    assert all(Path(uri).is_file() for uri in clips_table["uri"])
