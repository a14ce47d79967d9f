"""The demo corpus: reproducible, correctly captioned, and with every kind of broken recording."""

import io
import itertools
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile

from flap.core.audioset import display_names
from flap.core.errors import UserError
from flap.core.schemas import CLIPS
from flap.core.shards import read_folder
from flap.core.work import Work, run_shards
from flap.sources.config import DemoDataset, SplitClips
from flap.sources.demo.captions import describe, draw_captions, plural
from flap.sources.demo.catalogue import SYNTHESISERS, load_catalogue
from flap.sources.demo.dsp import Take
from flap.sources.demo.encoding import BROKEN, FORMATS, with_ogg_serial
from flap.sources.demo.mix import render
from flap.sources.demo.scene import Event, Scene, draw_scene
from flap.sources.demo.shards import DemoShards, broken_kind, make_clip

CATALOGUE_FILE = Path(__file__).parents[1] / "flap/sources/demo/sounds.yaml"
CATALOGUE = load_catalogue(CATALOGUE_FILE)
COUNT_WORDS = {"two": 2, "twice": 2, "three": 3, "four": 4}


@pytest.fixture(autouse=True)
def _one_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FLAP_JOBS", "1")


def scenes(count: int) -> Iterator[tuple[Scene, list[str]]]:
    for index in range(count):
        rng = np.random.default_rng(index)
        scene = draw_scene(rng, CATALOGUE)
        yield scene, draw_captions(rng, scene, CATALOGUE)


def make_corpus(folder: Path, shard_clips: int = 4) -> Path:
    clips = SplitClips(train=9, val=1, test=2)
    config = DemoDataset(adapter="demo", path=str(CATALOGUE_FILE), watch="", clips=clips, seed=5)
    out = folder / "sources" / "demo"
    demo = DemoShards("demo", config, shard_clips, Path("data/sources/demo"))
    work = Work.open(out, "print")
    run_shards(demo, demo.shards, work, "demo", made_from=str)
    work.publish()
    return out


def contents(folder: Path) -> dict[str, bytes]:
    files = (path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


def test_two_runs_give_the_same_bytes(tmp_path: Path) -> None:
    first, second = make_corpus(tmp_path / "a"), make_corpus(tmp_path / "b")
    assert contents(first) == contents(second)


def test_clips_do_not_depend_on_the_shard_size(tmp_path: Path) -> None:
    small, large = make_corpus(tmp_path / "a", 2), make_corpus(tmp_path / "b", 100)
    rows_small, rows_large = (
        read_folder(each, CLIPS).drop(columns="uri") for each in (small, large)
    )
    for column in ("captions", "labels"):
        assert (
            rows_small.pop(column).map(list).tolist() == rows_large.pop(column).map(list).tolist()
        )
    assert rows_small.equals(rows_large)
    sounds_small, sounds_large = (
        {Path(name).name: data for name, data in contents(each).items() if "_rec" in name}
        for each in (small, large)
    )
    assert sounds_small == sounds_large


def test_rows_are_ordered_and_recordings_are_at_their_uri(tmp_path: Path) -> None:
    out = make_corpus(tmp_path)
    clips = read_folder(out, CLIPS)
    assert clips["split"].tolist() == ["train"] * 9 + ["val"] + ["test"] * 2
    assert clips["clip_id"].is_unique
    for position, (clip, uri) in enumerate(zip(clips["clip_id"], clips["uri"], strict=True)):
        folder, name = uri.removeprefix("data/sources/demo/").rsplit("/", 1)
        assert folder == f"_recordings/shard-{position // 4:05d}"
        assert f"demo/{Path(name).stem}" == clip
        assert (out / folder / name).is_file()


def test_a_killed_run_resumes(tmp_path: Path) -> None:
    whole = contents(make_corpus(tmp_path / "whole"))
    out = make_corpus(tmp_path / "killed")
    work = Work.open(out, "print")
    work.folder.rmdir()
    out.rename(work.folder)
    work.published_notes.rename(work.notes)
    (work.folder / "shard-00001.parquet").unlink()
    next((work.folder / "_recordings/shard-00001").iterdir()).write_bytes(b"half")
    before = (work.folder / "shard-00000.parquet").stat().st_mtime_ns
    del work  # releases the lock
    assert contents(make_corpus(tmp_path / "killed")) == whole
    assert (out / "shard-00000.parquet").stat().st_mtime_ns == before


def test_labels_of_sounds_are_distinct_audioset_classes() -> None:
    assert {sound.label for sound in CATALOGUE.sounds.values()} <= set(display_names())
    labels = [sound.label for sound in CATALOGUE.sounds.values()]
    assert len(set(labels)) == len(labels) >= 24
    assert set(CATALOGUE.sounds) == set(SYNTHESISERS)


def test_scenes_fit_their_length_and_keep_their_order() -> None:
    lengths = []
    for scene, _ in scenes(400):
        lengths.append(scene.duration_s)
        assert 1.5 <= scene.duration_s <= 8.0
        assert max(event.end_s for event in scene.events) <= scene.duration_s
        pairs = itertools.pairwise(scene.events)
        if scene.relation in ("then", "series"):
            assert all(first.end_s < second.starts_s[0] for first, second in pairs)
        if scene.relation == "while":
            assert all(first.starts_s[0] < second.end_s for first, second in pairs)
            assert all(second.starts_s[0] < first.end_s for first, second in pairs)
    assert 0.05 < np.mean(np.array(lengths) > 5.0) < 0.15


def test_scenes_rarely_coincide() -> None:
    mentioned = [
        (s.relation, s.background, tuple((e.sound, e.count, e.pitch, e.loudness) for e in s.events))
        for s, _ in scenes(200)
    ]
    assert len(set(mentioned)) > 180


def test_five_different_captions() -> None:
    for _, captions in scenes(200):
        assert len({caption.rstrip(".") for caption in captions}) == 5
        assert not any("{" in caption or "  " in caption for caption in captions)


def test_numbers_in_captions_are_counts_of_the_scene() -> None:
    for scene, captions in scenes(300):
        counts = {event.count for event in scene.events}
        for caption in captions:
            words = re.findall(r"[a-z]+", caption.lower())
            mentioned = {COUNT_WORDS[word] for word in words if word in COUNT_WORDS}
            assert mentioned <= counts, (scene, caption)


def test_one_caption_mentions_all_counts() -> None:
    for scene, captions in scenes(100):
        repeated = {event.count for event in scene.events if event.count > 1}
        mentioned = [
            {
                COUNT_WORDS[word]
                for word in re.findall(r"[a-z]+", caption.lower())
                if word in COUNT_WORDS
            }
            for caption in captions
        ]
        assert repeated in mentioned


def test_captions_mention_pitch_and_background_only_if_the_scene_has_them() -> None:
    low_high = {"low", "deep", "low-pitched", "high", "high-pitched", "shrill"}
    behind = [phrase for sound in CATALOGUE.sounds.values() for phrase in sound.behind]
    for scene, captions in scenes(200):
        words = {word for caption in captions for word in re.findall(r"[a-z-]+", caption.lower())}
        if not any(event.pitch for event in scene.events):
            assert not words & low_high
        kinds = [CATALOGUE.sounds[name].kind for name in scene.sounds]
        if "texture" not in kinds:
            assert not any(phrase in caption.lower() for phrase in behind for caption in captions)


def test_noun_phrases() -> None:
    assert describe("an owl hoot", ["loud", "deep"]) == "a loud deep owl hoot"
    assert describe("a knock", []) == "a knock"
    assert describe("the sea", ["loud"]) == "the loud sea"
    assert describe("applause", ["faint"]) == "faint applause"
    assert plural("a horn blast from a train") == "horn blasts from a train"
    assert plural("a glass crash") == "glass crashes"


@pytest.mark.parametrize("name", SYNTHESISERS)
@pytest.mark.parametrize("rate_hz", [16000, 48000])
def test_every_sound_can_be_made_and_differs_by_take(name: str, rate_hz: int) -> None:
    n = int(CATALOGUE.sounds[name].seconds[0] * rate_hz)
    takes = [SYNTHESISERS[name](Take(np.random.default_rng(i), n, rate_hz, 1.4)) for i in (0, 1)]
    for sound in takes:
        assert sound.shape == (n,)
        assert np.isfinite(sound).all()
        assert np.abs(sound).max() > 0
    assert not np.array_equal(*takes)


def test_loud_events_are_louder_and_repeats_are_separate() -> None:
    event = Event("beep", 3, None, "loud", (0.5, 1.0, 1.5), 0.2)
    loud = Scene("one", (event,), None, 2.0)
    faint = replace(loud, events=(replace(event, loudness="faint"),))
    waves = [
        render(scene, CATALOGUE, np.random.default_rng(0), 16000, 1)[:, 0]
        for scene in (loud, faint)
    ]
    rms = [np.sqrt(np.mean(wave**2)) for wave in waves]
    assert rms[0] > 8 * rms[1]
    is_on = np.abs(waves[0]).reshape(-1, 1600).max(axis=1) > 0.1
    assert np.count_nonzero(np.diff(is_on.astype(int)) == 1) == 3


def test_broken_recordings_of_every_kind_in_every_large_split() -> None:
    for split in ("train", "val", "test"):
        kinds = [broken_kind(split, index) for index in range(500)]
        assert {kind for kind in kinds if kind} == set(BROKEN)
        assert sum(kind is not None for kind in kinds) == 5
    small = {broken_kind(*each) for each in itertools.product(("val", "test"), range(100))}
    assert len(small - {None}) == 2


def test_broken_recordings_have_the_fault_of_their_name() -> None:
    clips = {
        broken_kind("train", i): make_clip(CATALOGUE, 1, "train", i) for i in range(7, 500, 100)
    }
    assert clips["missing"].recording is None
    assert clips["empty"].recording == b""
    with pytest.raises(soundfile.LibsndfileError):
        soundfile.read(io.BytesIO(clips["truncated"].recording or b""))
    silent, _ = soundfile.read(io.BytesIO(clips["silent"].recording or b""))
    assert len(silent) > 0
    assert not silent.any()
    short, rate_hz = soundfile.read(io.BytesIO(clips["too_short"].recording or b""))
    assert 0 < len(short) / rate_hz < 0.1


@pytest.mark.parametrize("position", range(len(FORMATS)))
def test_formats_give_equal_bytes_for_equal_samples(
    position: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    samples = 0.1 * np.random.default_rng(0).standard_normal((22050, 2))
    first = FORMATS[position].encode(samples, 22050)
    monkeypatch.setattr("time.time", lambda: 1e9)
    assert FORMATS[position].encode(samples, 22050) == first
    assert sum(each.share for each in FORMATS) == pytest.approx(1.0)


def test_ogg_with_another_serial_is_the_same_sound() -> None:
    samples = 0.1 * np.random.default_rng(0).standard_normal(30000)
    buffer = io.BytesIO()
    soundfile.write(buffer, samples, 16000, format="OGG", subtype="VORBIS")
    ogg = buffer.getvalue()
    changed = with_ogg_serial(ogg, 7)
    assert changed[14:18] == b"\x07\0\0\0"
    assert with_ogg_serial(changed, int.from_bytes(ogg[14:18], "little")) == ogg
    decoded, expected = (soundfile.read(io.BytesIO(each))[0] for each in (changed, ogg))
    assert np.array_equal(decoded, expected)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("label: Rain,", "label: Drizzle,", "'sounds.rain.label'.*no AudioSet display name"),
        ("  rain:\n", "  hail:\n", "no synthesis function for hail"),
        ("subject: [a drum],", "", "'sounds.drum.subject'.*required"),
    ],
)
def test_the_error_names_a_wrong_key_of_the_catalogue(
    tmp_path: Path, old: str, new: str, message: str
) -> None:
    path = tmp_path / "sounds.yaml"
    path.write_text(CATALOGUE_FILE.read_text().replace(old, new))
    with pytest.raises(UserError, match=message):
        load_catalogue(path)
