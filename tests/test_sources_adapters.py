"""Adapters: a few rows in each corpus's public format → the expected clips and rejects."""

import json
import shutil
import tarfile
from io import BytesIO
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import soundfile
import webdataset

from flap.audio.read import read_recording
from flap.core.config import load_section
from flap.core.errors import UserError
from flap.core.shards import Row
from flap.sources.adapters import read_corpus
from flap.sources.config import CorpusDataset, DatasetsConfig
from flap.sources.corpus import CorpusRows
from flap.sources.record import AdapterOutput

REAL = Path(__file__).parents[2] / "shared" / "real"


def recording(seed: int) -> bytes:
    buffer = BytesIO()
    samples = np.random.default_rng(seed).normal(0, 0.1, 800)
    soundfile.write(buffer, samples, 16000, format="FLAC")
    return buffer.getvalue()


def write(folder: Path, files: dict[str, str | bytes | Any]) -> Path:
    """Write files by name; the content is text, bytes, or a value to be written as JSON."""
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(content, bytes):
            path.write_bytes(content)
        else:
            path.write_text(content if isinstance(content, str) else json.dumps(content))
    return folder


def section(tmp_path: Path, entry: Row) -> CorpusDataset:
    """The entry of `datasets`, loaded from a params.yaml."""
    params = {"datasets": {"x": {"watch": "x", "captions": "required"} | entry}}
    (tmp_path / "params.yaml").write_text(json.dumps(params))
    config = load_section(tmp_path / "params.yaml", "datasets", DatasetsConfig).root["x"]
    assert isinstance(config, CorpusDataset)
    return config


def read(tmp_path: Path, adapter: str, path: Path | str, **more: Any) -> CorpusRows:
    config = section(tmp_path, {"adapter": adapter, "path": str(path)} | more)
    return read_corpus("x", config, AdapterOutput(tmp_path / "work", tmp_path / "out"))


def brief(corpus: CorpusRows, *columns: str) -> list[tuple[Any, ...]]:
    return [tuple(row[column] for column in ("clip_id", "split", *columns)) for row in corpus.clips]


def refused(corpus: CorpusRows) -> list[tuple[str, str]]:
    return [(row["clip_id"], row["reason"]) for row in corpus.rejects]


# --- AudioCaps

AUDIOCAPS = "audiocap_id,youtube_id,start_time,caption\n"


def audiocaps(folder: Path) -> Path:
    captions = [f'{900 + i},-abc_EFG-12,30,"Dogs bark, {i}"\n' for i in range(5)]
    return write(
        folder,
        {
            "train.csv": AUDIOCAPS
            + "1,AAAAAAAAAAA,0,Rain\n2,AAAAAAAAAAA,70,Wind\n3,gone_gone_x,5,Gone\n",
            "test.csv": AUDIOCAPS + "".join(captions) + "7,lostlostlos,1,Lost\n",
            "wavs/train/AAAAAAAAAAA_0.wav": b"",
            "wavs/YAAAAAAAAAAA_70000_80000.flac": b"",
            "wavs/train/-abc_EFG-12.wav": b"",
            "wavs/test/-abc_EFG-12.wav": b"",
        },
    )


def test_audiocaps(tmp_path: Path) -> None:
    corpus = read(tmp_path, "audiocaps", audiocaps(tmp_path / "caps"))
    root = tmp_path / "caps/wavs"
    assert brief(corpus, "uri", "captions", "origin") == [
        (
            "x/AAAAAAAAAAA_0",
            "train",
            f"{root}/train/AAAAAAAAAAA_0.wav",
            ["Rain"],
            "youtube:AAAAAAAAAAA",
        ),
        (
            "x/AAAAAAAAAAA_70",
            "train",
            f"{root}/YAAAAAAAAAAA_70000_80000.flac",
            ["Wind"],
            "youtube:AAAAAAAAAAA",
        ),
        (
            "x/-abc_EFG-12_30",
            "test",
            f"{root}/test/-abc_EFG-12.wav",
            [f"Dogs bark, {i}" for i in range(5)],
            "youtube:-abc_EFG-12",
        ),
    ]
    assert refused(corpus) == [("x/gone_gone_x_5", "missing"), ("x/lostlostlos_1", "missing")]
    assert corpus.notes[:2] == ["train: 2 of 3 clips present", "test: 1 of 2 clips present"]


def test_audiocaps_in_other_containers(tmp_path: Path) -> None:
    lines = "1,-bcdefghijk,30,One\n2,__cdefghijk,0,Two\n3,,0,Three\n4,,0,Four\n"
    files = {"test.csv": AUDIOCAPS + lines, "v/-bcdefghijk_30.webm": b"", "v/__cdefghijk.MP4": b""}
    corpus = read(tmp_path, "audiocaps", write(tmp_path / "caps", files))
    assert [row["captions"] for row in corpus.clips] == [["One"], ["Two"]]
    assert [row["reason"] for row in corpus.rejects] == ["missing", "missing"]


def test_audiocaps_needs_its_tables(tmp_path: Path) -> None:
    (tmp_path / "caps").mkdir()
    with pytest.raises(UserError, match=r"none of train\.csv, val\.csv, test\.csv is here"):
        read(tmp_path, "audiocaps", tmp_path / "caps")
    write(tmp_path / "caps", {"val.csv": "youtube_id,caption\n"})
    with pytest.raises(UserError, match=r"val\.csv: column 'audiocap_id' is missing"):
        read(tmp_path, "audiocaps", tmp_path / "caps")


# --- Clotho


def clotho(folder: Path) -> Path:
    header = "file_name," + ",".join(f"caption_{i}" for i in range(1, 6)) + "\n"
    five = ",".join(f"caption {i}" for i in range(1, 6))
    metadata = (
        "file_name,keywords,sound_id,sound_link,start_end_samples,manufacturer,license\n"
        "Café 1.wav,rain;street,4711,https://freesound.org/s/4711,[0],me,CC-BY\n"
        "b.wav,dog,Not found,,[0],me,CC0\n"
    )
    return write(
        folder,
        {
            "clotho_captions_development.csv": f"{header}Café 1.wav,{five}\nb.wav,{five}\n",
            "clotho_metadata_development.csv": metadata.encode("cp1252"),
            "clotho_captions_validation.csv": f"{header}Café 1.wav,{five}\n",
            "clotho_captions_evaluation.csv": f"{header}c.wav,{five}\ngone.wav,{five}\n",
            "clotho_audio_development/development/Café 1.wav": b"",
            "clotho_audio_development/development/b.wav": b"",
            "validation/Café 1.wav": b"",
            "evaluation/c.wav": b"",
        },
    )


def test_clotho(tmp_path: Path) -> None:
    corpus = read(tmp_path, "clotho", clotho(tmp_path / "clotho"))
    root = tmp_path / "clotho"
    assert brief(corpus, "uri", "labels", "origin", "licence") == [
        (
            "x/clotho_audio_development/development/Café 1.wav",
            "train",
            f"{root}/clotho_audio_development/development/Café 1.wav",
            ["Rain", "street"],
            "freesound:4711",
            "CC-BY",
        ),
        ("x/b", "train", f"{root}/clotho_audio_development/development/b.wav", ["Dog"], "", "CC0"),
        ("x/validation/Café 1.wav", "val", f"{root}/validation/Café 1.wav", [], "", ""),
        ("x/c", "test", f"{root}/evaluation/c.wav", [], "", ""),
    ]
    assert corpus.clips[0]["captions"] == [f"caption {i}" for i in range(1, 6)]
    assert refused(corpus) == [("x/gone", "missing")]
    assert "test: 1 of 2 clips present" in corpus.notes


# --- WavCaps


def test_wavcaps(tmp_path: Path) -> None:
    people = "/people/me/sounds/180913/"
    data = [
        {"id": "180913", "caption": "A ball.", "duration": 3.6, "href": people, "tags": ["ball"]},
        {"id": "Yb0RFKhbpFJA.wav", "caption": ["One.", "Two."], "duration": 10},
        {"id": "77", "caption": "Banned.", "duration": 1, "href": "/people/me/sounds/77/"},
        {"id": "99", "caption": "Gone.", "duration": 1},
        {"caption": "Nameless."},
        {"id": "5", "caption": None, "duration": "?", "download_link": "https://bbc.example/5"},
    ]
    folder = write(
        tmp_path / "wavcaps",
        {
            "json/fsd_final.json": {"num_captions_per_audio": 1, "data": data},
            "blacklist.json": {"FreeSound": ["77"], "AudioSet": ["Yxxxxxxxxxxx.wav"]},
            "flac/180913.flac": b"",
            "flac/Yb0RFKhbpFJA.flac": b"",
            "flac/77.flac": b"",
            "flac/5.flac": b"",
        },
    )
    options = {"table": "json/fsd_final.json", "blacklist": "blacklist.json"}
    corpus = read(tmp_path, "wavcaps", folder, **options)
    assert brief(corpus, "captions", "labels", "duration_s", "origin") == [
        ("x/180913", "train", ["A ball."], ["ball"], 3.6, "freesound:180913"),
        ("x/Yb0RFKhbpFJA", "train", ["One.", "Two."], [], 10.0, "youtube:b0RFKhbpFJA"),
    ]
    reasons = [reason for _, reason in refused(corpus)]
    assert reasons == ["blacklisted", "missing", "missing", "no_caption"]
    with pytest.raises(UserError, match=r"other\.json: cannot be read: No such file"):
        read(tmp_path, "wavcaps", folder, **options | {"table": "other.json"})
    with pytest.raises(UserError, match="expected WavCaps'"):
        read(tmp_path, "wavcaps", folder, **options | {"table": "blacklist.json"})


def test_wavcaps_ignores_recordings_of_other_parts(tmp_path: Path) -> None:
    data = {"data": [{"id": "5", "caption": "Five."}, {"id": "6", "caption": "Six."}]}
    recordings = {"FreeSound/5.flac": b"", "FreeSound/6.flac": b"", "SoundBible/6.flac": b""}
    names = ("sb.json", "json_files/SoundBible/sb.json", "json_files/FreeSound/fsd.json")
    folder = write(tmp_path / "wavcaps", dict.fromkeys(names, data) | recordings)
    write(folder, {"black.json": {"FreeSound": [6, "7"]}})

    def uris(table: str, **options: str) -> list[str]:
        config = {"table": table, "blacklist": None} | options
        corpus = read(tmp_path, "wavcaps", folder, **config)
        return [str(Path(row["uri"]).relative_to(folder)) for row in corpus.clips]

    assert uris(names[1]) == ["SoundBible/6.flac"]
    assert uris(names[2]) == ["FreeSound/5.flac", "FreeSound/6.flac"]
    assert uris(names[2], blacklist="black.json") == ["FreeSound/5.flac"]
    with pytest.raises(UserError, match="no usable row among 2; 2 missing"):
        uris(names[0])  # a table outside of a part's folder does not say which part it is
    write(tmp_path / "mixed", {"sb.json": data, "a/5.flac": b"", "b/5.flac": b"", "a/6.flac": b""})
    corpus = read(tmp_path, "wavcaps", tmp_path / "mixed", table="sb.json", blacklist=None)
    assert [row["clip_id"] for row in corpus.clips] == ["x/6"]
    assert "several recordings have this name: a/5.flac, b/5.flac" in corpus.rejects[0]["detail"]


# --- Tars

SPLITS = {"train": "train", "valid": "val", "test": "test"}


def tar(path: Path, samples: dict[str, Any]) -> Path:
    """A tar written by webdataset; `samples` maps each key to the sample's JSON."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with webdataset.TarWriter(str(path)) as writer:
        for i, (key, described) in enumerate(samples.items()):
            writer.write({"__key__": key, "flac": recording(i), "json": described})
    return path


def bytes_of(row: Row) -> bytes:
    return read_recording(row["uri"], row["offset"], row["n_bytes"], 10**9)


def test_tars(tmp_path: Path) -> None:
    original = {"title": "Street", "license": "CC0", "sound_id": 4711}
    first = {"text": ["A dog.", "Barking."], "tag": ["dog", "bark"], "original_data": original}
    folder = tmp_path / "freesound"
    tar(folder / "train/0.tar", {"17": first, "18": {"text": "Rain.", "original_data": "?"}})
    tar(folder / "test/0.tar", {"17": {"text": ["Wind."], "tag": []}, "19": {"text": []}})
    splits = {"train": "train", "test": "test"}
    corpus = read(tmp_path, "tars", folder, splits=splits)
    assert brief(corpus, "uri", "captions", "labels", "licence", "origin") == [
        (
            "x/train/0.tar/17.flac",
            "train",
            f"{folder}/train/0.tar",
            ["A dog.", "Barking."],
            ["Dog", "Bark"],
            "CC0",
            "freesound:4711",
        ),
        ("x/18", "train", f"{folder}/train/0.tar", ["Rain."], [], "", ""),
        ("x/test/0.tar/17.flac", "test", f"{folder}/test/0.tar", ["Wind."], [], "", ""),
    ]
    assert [bytes_of(row) for row in corpus.clips] == [recording(0), recording(1), recording(0)]
    assert refused(corpus) == [("x/19", "no_caption")]


def test_samples_of_one_audiocaps_excerpt_are_merged(tmp_path: Path) -> None:
    excerpt = {"youtube_id": "-abc_EFG-12", "start_time": "30"}
    other = {"youtube_id": "-abc_EFG-12", "start_time": 40.0}
    samples = {str(i): {"text": [f"Caption {i}."], "original_data": excerpt} for i in range(3)}
    samples["3"] = {"text": "Other.", "original_data": other}
    tar(tmp_path / "audiocaps/test/0.tar", samples)
    corpus = read(tmp_path, "tars", tmp_path / "audiocaps", splits={"test": "test"})
    assert brief(corpus, "captions", "origin") == [
        ("x/0", "test", [f"Caption {i}." for i in range(3)], "youtube:-abc_EFG-12"),
        ("x/3", "test", ["Other."], "youtube:-abc_EFG-12"),
    ]
    assert refused(corpus) == [
        ("x/test/0.tar/1.flac", "duplicate"),
        ("x/test/0.tar/2.flac", "duplicate"),
    ]
    assert corpus.notes[0] == "test: 2 of 2 clips present"


def test_tars_without_split_and_compressed_tars_are_errors(tmp_path: Path) -> None:
    tar(tmp_path / "corpus/valid/0.tar", {"1": {"text": "Rain."}})
    with pytest.raises(UserError, match=r"valid have no split; write `splits: {valid: val}`"):
        read(tmp_path, "tars", tmp_path / "corpus", splits={"train": "train"})
    write(tmp_path / "corpus", {"train/1.tar.gz": b""})
    with pytest.raises(UserError, match=r"1\.tar\.gz: is compressed"):
        read(tmp_path, "tars", tmp_path / "corpus", splits=SPLITS)


@pytest.mark.parametrize("named", [True, False])
def test_laions_clotho_is_recognised(tmp_path: Path, named: bool) -> None:
    """By the folder's name, or by the columns of Clotho's CSV in the JSON."""
    columns = {f"caption_{i}": "x" for i in range(1, 6)}
    described = {"text": ["Rain."]} | ({} if named else {"original_data": columns})
    folder = tmp_path / ("LAION_Clotho" if named else "some")
    for split in SPLITS:
        tar(folder / split / "0.tar", {f"{split}1": described})
    with pytest.raises(UserError, match=r"test: val, .*valid: test}`"):
        read(tmp_path, "tars", folder, splits=SPLITS)
    right = {"train": "train", "test": "val", "valid": "test"}
    corpus = read(tmp_path, "tars", folder, splits=right)
    assert {row["clip_id"]: row["split"] for row in corpus.clips} == {
        "x/train1": "train",
        "x/test1": "val",
        "x/valid1": "test",
    }
    if named:
        assert "valid holds Clotho's evaluation split" in corpus.notes[1]


def hostile_tar(path: Path) -> None:
    path.parent.mkdir(parents=True)
    with tarfile.open(path, "w") as archive:

        def add(name: str, data: bytes, **attributes: Any) -> None:
            member = tarfile.TarInfo(name)
            member.size = len(data)
            for attribute, value in attributes.items():
                setattr(member, attribute, value)
            archive.addfile(member, BytesIO(data))

        add("../escaped.flac", recording(0))
        add("/etc/escaped.flac", recording(0))
        add("link.flac", b"", type=tarfile.SYMTYPE, linkname="/etc/passwd")
        add("device.flac", b"", type=tarfile.CHRTYPE)
        add("good.flac", recording(1))
        add("good.json", b'{"text": "Good {braces} <b>."}')
        add("alone.flac", recording(2))
        add("mute.json", b'{"text": "Nothing."}')
        add("torn.flac", recording(3))
        add("torn.json", b'{"text": ')


def test_members_of_a_hostile_tar_become_clips_or_rejects(tmp_path: Path) -> None:
    """Reading the tar must not write any file."""
    hostile_tar(tmp_path / "corpus/train/0.tar")
    before = sorted(tmp_path.rglob("*"))
    corpus = read(tmp_path, "tars", tmp_path / "corpus", splits={"train": "train"})
    assert [row["captions"] for row in corpus.clips] == [["Good {braces} <b>."]]
    assert bytes_of(corpus.clips[0]) == recording(1)
    reasons = [reason for _, reason in refused(corpus)]
    assert sorted(reasons) == sorted([*["outside"] * 4, "no_caption", "missing", "unreadable"])
    assert sorted(tmp_path.rglob("*")) == sorted([*before, tmp_path / "params.yaml"])


@pytest.mark.parametrize("cut", [0, 100, 512, 700])
def test_complete_members_of_a_truncated_tar_are_used(tmp_path: Path, cut: int) -> None:
    path = tar(tmp_path / "corpus/train/0.tar", {str(i): {"text": f"{i}."} for i in range(20)})
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 1024 * 512 + cut])
    corpus = read(tmp_path, "tars", tmp_path / "corpus", splits={"train": "train"})
    assert 5 <= len(corpus.clips) < 15
    assert ("x/train/0.tar", "unreadable") in refused(corpus)


# --- Labelled folders


def test_esc50(tmp_path: Path) -> None:
    table = (
        "filename,fold,target,category,esc10,src_file,take\n"
        "1-100032-A-0.wav,1,0,dog,True,100032,A\n"
        "4-100038-A-14.wav,4,14,chirping_birds,False,100038,A\n"
        "5-9-A-14.wav,5,14,sea_waves,False,9,A\n"
        "5-8-A-14.wav,x,14,sea_waves,False,8,A\n"
    )
    names = ("1-100032-A-0", "4-100038-A-14", "5-9-A-14", "5-8-A-14")
    audio = {f"audio/{name}.wav": b"" for name in names}
    folder = write(tmp_path / "esc", {"meta/esc50.csv": table} | audio)
    options = {"splits": {"val": [4], "test": [5]}, "caption": "The sound of {label}."}
    corpus = read(tmp_path, "labelled", folder, **options)
    assert brief(corpus, "labels", "captions", "origin") == [
        ("x/1-100032-A-0", "train", ["Dog"], ["The sound of dog."], "freesound:100032"),
        (
            "x/4-100038-A-14",
            "val",
            ["Chirp, tweet"],
            ["The sound of chirping birds."],
            "freesound:100038",
        ),
        ("x/5-9-A-14", "test", ["Waves, surf"], ["The sound of sea waves."], "freesound:9"),
    ]
    assert refused(corpus) == [("x/5-8-A-14", "bad_split")]
    without = read(
        tmp_path, "labelled", folder, **options | {"caption": None, "captions": "optional"}
    )
    assert [row["captions"] for row in without.clips] == [[], [], []]


def test_folders_of_labels(tmp_path: Path) -> None:
    files = {f"{label}/{i}.WAV": b"" for label in ("dog", "rain") for i in range(40)}
    folder = write(tmp_path / "set", files)
    drawn = {"seed": 0, "fractions": {"train": 0.5, "val": 0.25, "test": 0.25}}
    options = {"splits": drawn, "caption": "The sound of {label}."}
    corpus = read(tmp_path, "labelled", folder, **options)
    assert {row["labels"][0] for row in corpus.clips} == {"Dog", "Rain"}
    for label in ("Dog", "Rain"):  # clips that share only the template's caption may be separated
        splits = {row["split"] for row in corpus.clips if row["labels"] == [label]}
        assert splits == {"train", "val", "test"}
    with pytest.raises(UserError, match="there is no table with a column 'fold'"):
        read(tmp_path, "labelled", folder, **options | {"splits": {"val": [1], "test": [2]}})


def test_clips_of_one_upload_get_one_split(tmp_path: Path) -> None:
    files = {f"dog/1-{upload}-{take}-0.wav": b"" for upload in range(20) for take in "ABCD"}
    folder = write(tmp_path / "set", files | {"dog/read me.txt": b""})
    drawn = {"seed": 0, "fractions": {"train": 0.5, "val": 0.25, "test": 0.25}}
    corpus = read(tmp_path, "labelled", folder, splits=drawn, caption="A {label}.")
    found = {(row["origin"], row["split"]) for row in corpus.clips}
    assert len(corpus.clips) == 80 and len(found) == 20
    assert corpus.notes == [
        "1 files without an extension of recordings are ignored: dog/read me.txt, …"
    ]


def test_two_columns_with_one_meaning_are_an_error(tmp_path: Path) -> None:
    table = "filename,category,label\na.wav,dog,7\n"
    folder = write(tmp_path / "set", {"meta.csv": table, "a.wav": b""})
    with pytest.raises(UserError, match="columns category and label mean the same; keep one"):
        drawn = {"seed": 0, "fractions": {"train": 1.0, "val": 0.0, "test": 0.0}}
        read(tmp_path, "labelled", folder, splits=drawn, caption=None)


# --- Hugging Face datasets


def test_huggingface_tables_and_files(tmp_path: Path) -> None:
    import datasets

    features = datasets.Features(
        {
            "sound": datasets.Audio(),
            "text": datasets.List(datasets.Value("string")),
            "kind": datasets.ClassLabel(names=["dog", "rain"]),
        }
    )
    rows = {
        "sound": [
            {"path": "a.flac", "bytes": recording(0)},
            {"path": None, "bytes": recording(1)},
            None,
        ],
        "text": [["A dog.", "Barking."], ["Rain."], ["Nothing."]],
        "kind": [0, 1, 1],
    }
    (tmp_path / "set").mkdir()
    schema = features.arrow_schema
    pq.write_table(pa.table(rows, schema=schema), tmp_path / "set/train-00000-of-00001.parquet")
    options = {
        "revision": None,
        "configuration": None,
        "splits": {"train": "val"},
        "columns": {"audio": "sound", "captions": "text", "labels": "kind"},
    }
    corpus = read(tmp_path, "huggingface", tmp_path / "set", **options)
    assert brief(corpus, "captions", "labels") == [
        ("x/train/0", "val", ["A dog.", "Barking."], ["Dog"]),
        ("x/train/1", "val", ["Rain."], ["Rain"]),
    ]
    for i, row in enumerate(corpus.clips):
        stored = tmp_path / "work" / Path(row["uri"]).relative_to(tmp_path / "out")
        assert stored.read_bytes() == recording(i)
    assert refused(corpus) == [("x/train/2", "missing")]
    with pytest.raises(UserError, match="no column 'noise'; there are: sound, text, kind"):
        read(tmp_path, "huggingface", tmp_path / "set", **options | {"columns": {"audio": "noise"}})


@pytest.mark.parametrize(
    "path",
    [
        "file:///{secret}::a.wav",
        "http://127.0.0.1:9/y::a.wav",
        "zip://a.wav::file:///{secret}::b.zip",
        "../secret.wav",
        "zip://../x.wav::b.zip",
    ],
)
def test_huggingface_rows_cannot_leave_the_corpus(tmp_path: Path, path: str) -> None:
    secret = tmp_path / "secret.wav"
    secret.write_bytes(recording(0))
    rows = f"audio,text\n{path.format(secret=secret)},Secret.\nb.flac,One.\nb.flac,Two.\n"
    write(tmp_path / "set", {"train.csv": rows, "b.flac": recording(1)})
    columns = {"audio": "audio", "captions": "text", "youtube_id": "text"}
    options = {"revision": None, "configuration": None, "splits": {"train": "train"}}
    corpus = read(tmp_path, "huggingface", tmp_path / "set", **options, columns=columns)
    assert brief(corpus, "captions") == [("x/b", "train", ["One.", "Two."])]
    assert [row["reason"] for row in corpus.rejects] == ["outside", "duplicate"]


def test_an_unreachable_hub_is_a_user_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    options = {
        "revision": None,
        "configuration": None,
        "splits": {"train": "train"},
        "columns": {"audio": "audio"},
    }
    with pytest.raises(UserError, match="nowhere: `datasets` cannot load split 'train' "):
        read(tmp_path, "huggingface", tmp_path / "nowhere", **options)


# --- Remote corpora


def upload(folder: Path, url: str) -> None:
    filesystem, base = fsspec.url_to_fs(url)
    for path in folder.rglob("*"):
        if path.is_file():
            filesystem.pipe_file(f"{base}/{path.relative_to(folder).as_posix()}", path.read_bytes())


def test_corpora_in_an_object_store(tmp_path: Path, s3: str) -> None:
    folder = tmp_path / "tars"
    tar(folder / "train/0.tar", {"17": {"text": "Rain."}, "18": {"text": "Wind."}})
    upload(folder, f"{s3}/tars")
    corpus = read(tmp_path, "tars", f"{s3}/tars", splits={"train": "train"})
    assert [row["uri"] for row in corpus.clips] == [f"{s3}/tars/train/0.tar"] * 2
    assert [bytes_of(row) for row in corpus.clips] == [recording(0), recording(1)]
    upload(audiocaps(tmp_path / "caps"), f"{s3}/caps")
    local = read(tmp_path, "audiocaps", tmp_path / "caps")
    remote = read(tmp_path, "audiocaps", f"{s3}/caps")
    uris = [row.pop("uri").replace(f"{s3}/caps", str(tmp_path / "caps")) for row in remote.clips]
    assert uris == [row.pop("uri") for row in local.clips]
    assert (remote.clips, remote.rejects) == (local.clips, local.rejects)


def test_an_unknown_protocol_is_a_user_error(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="Protocol not known: carrier-pigeon"):
        read(tmp_path, "clotho", "carrier-pigeon://x/y")
    with pytest.raises(UserError, match="memory://nothing: no such folder"):
        read(tmp_path, "clotho", "memory://nothing")


# --- The same recordings in three forms


@pytest.mark.skipif(not REAL.is_dir(), reason="the real recordings are not beside the project")
def test_real_recordings_are_the_same_clips_in_every_form(tmp_path: Path) -> None:
    table = pd.read_csv(REAL / "captions.csv", dtype=str).fillna("")
    drawn = {"splits": {"seed": 1, "fractions": {"train": 0.6, "val": 0.2, "test": 0.2}}}
    folder = read(tmp_path, "folder", REAL, **drawn)
    assert len(folder.clips) == len(table) == 348
    split_of = {row["clip_id"].removeprefix("x/audio/"): row["split"] for row in folder.clips}
    table["stem"] = [Path(name).stem for name in table["file_name"]]
    table["split"] = table["stem"].map(split_of)

    esc = tmp_path / "esc"
    (esc / "meta").mkdir(parents=True)
    columns = ["filename", "category", "caption", "licence", "source", "freesound_id", "split"]
    named = table.assign(filename=[Path(name).name for name in table["file_name"]])
    named = named.rename(columns={"labels": "category"})
    named["filename"] = "audio/" + named["filename"]
    named[columns].to_csv(esc / "meta/real.csv", index=False)
    shutil.copytree(REAL / "audio", esc / "audio")
    fractions = {"splits": drawn["splits"], "caption": None}
    labelled = read(tmp_path, "labelled", esc, **fractions)

    tars = tmp_path / "tars"
    for split, rows in table.groupby("split"):
        path = tars / str(split) / "0.tar"
        path.parent.mkdir(parents=True)
        with webdataset.TarWriter(str(path)) as writer:
            for row in rows.to_dict("records"):
                suffix = Path(row["file_name"]).suffix.removeprefix(".")
                described = {
                    "text": [row["caption"]],
                    "tag": row["labels"].split(";"),
                    "original_data": {
                        "license": row["licence"],
                        "source": row["source"],
                        "freesound_id": row["freesound_id"].removesuffix(".0"),
                    },
                }
                data = (REAL / row["file_name"]).read_bytes()
                writer.write({"__key__": row["stem"], suffix: data, "json": described})
    packed = read(tmp_path, "tars", tars, splits={s: s for s in ("train", "val", "test")})

    def content(corpus: CorpusRows) -> dict[str, Any]:
        same = ("split", "captions", "labels", "licence", "source", "origin")
        return {
            row["clip_id"].removeprefix("x/").removeprefix("audio/"): (
                *(row[column] for column in same),
                bytes_of(row),
            )
            for row in corpus.clips
        }

    assert content(labelled) == content(packed) == content(folder)
