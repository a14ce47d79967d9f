"""MELS in a store: the same batches, copies shared and within the limit, stores that fail."""

import io
import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
import time
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

import fsspec
import numpy as np
import pandas as pd
import pytest
from conftest import Corpus
from fsspec.implementations.memory import MemoryFileSystem
from test_pretrain import ARGUMENTS, ROOT, project

from flap.core.errors import UserError
from flap.mels import cache_space, shard_copies
from flap.mels.clips import check_front_end, usable_clips
from flap.mels.reader import MelReader
from flap.mels.remote_rows import fetch_rows
from flap.mels.shard_copies import ShardCopy, shard_copy
from flap.mels.stubs import mel_versions, mels_from_environment
from flap.model.config import SpecAugment
from flap.training.batches import Batch, WindowSampler, read_batches
from flap.training.order import MicroBatches, PairOrder
from flap.training.prefetch import with_prefetch

ALL = ["train", "val", "test"]


class Store(MemoryFileSystem):
    """A store in memory that records the size of each read and fails `failures` times."""

    protocol = "counted"
    failures = 0
    read: list[int] = []  # noqa: RUF012 - shared, like the files of the store

    def _open(self, path: str, mode: str = "rb", **options: Any) -> IO[bytes]:
        if mode != "rb":
            return super()._open(path, mode, **options)
        if Store.failures:
            Store.failures -= 1
            raise OSError("the store is tired")
        with super()._open(path, mode, **options) as file:
            return CountedBytes(file.getvalue())


class CountedBytes(io.BytesIO):
    def read(self, size: int | None = -1) -> bytes:
        found = super().read(size)
        Store.read.append(len(found))
        return found


fsspec.register_implementation("counted", Store)


@pytest.fixture(autouse=True)
def forked_children_end_well(monkeypatch: pytest.MonkeyPatch) -> None:
    """Exit handlers of Prefect and Ray fail in the children that these tests fork."""
    monkeypatch.setattr("threading._threading_atexits", [])


@pytest.fixture
def store(corpus: Corpus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The URL of a store with the corpus's MELS; FLAP_MELS and FLAP_MELS_CACHE are set."""
    monkeypatch.setattr("flap.mels.remote_shard._PAUSE_SECONDS", 0)
    monkeypatch.setenv("FLAP_MELS", "counted://mels")
    monkeypatch.setenv("FLAP_MELS_CACHE", str(tmp_path / "cache"))
    upload(corpus.mels, "counted://mels")
    Store.read.clear()
    yield "counted://mels"
    Store.failures = 0
    Store.store.clear()
    Store.pseudo_dirs[:] = [""]


def upload(folder: Path, url: str) -> None:
    fs, base = fsspec.url_to_fs(url)
    for path in folder.rglob("*.parquet"):
        fs.pipe_file(f"{base}/{path.relative_to(folder).as_posix()}", path.read_bytes())


def clips_of(corpus: Corpus, splits: list[str] = ALL) -> pd.DataFrame:
    mels = mels_from_environment(corpus.mels, ["toy"])
    return usable_clips(corpus.clips, mels, ["toy"], splits)


def local_clips(corpus: Corpus, splits: list[str] = ALL) -> pd.DataFrame:
    return usable_clips(corpus.clips, corpus.mels, ["toy"], splits)


def batches(clips: pd.DataFrame, *, window: int = 1, workers: int = 0) -> list[Batch]:
    """Three epochs of two captions a clip."""
    shards, captions = pd.factorize(clips["path"])[0], clips["captions"].map(len).to_numpy()
    order = PairOrder(shards, captions, seed=0, window=window, batch=4, streams=1)
    draw = WindowSampler(16, False, SpecAugment(max_frames=2, max_bins=2), seed=0)
    steps = range(3 * order.pairs_per_epoch // 4)
    return list(read_batches(clips, MicroBatches(order, steps), draw, workers=workers))


def assert_same(ours: list[Batch], theirs: list[Batch]) -> None:
    assert len(ours) == len(theirs) > 20
    for a, b in zip(ours, theirs, strict=True):
        assert a.pairs == b.pairs
        assert a.windows.mel_BCTF.equal(b.windows.mel_BCTF)


def copies(cache: Path) -> list[Path]:
    return sorted(cache.glob("*/copies/*/*"))


def used(cache: Path) -> int:
    return sum(path.stat().st_size for path in copies(cache))


def shard_bytes(corpus: Corpus) -> list[int]:
    return [path.stat().st_size for path in sorted(corpus.mels.rglob("shard-*.parquet"))]


@pytest.mark.parametrize("workers", [0, 2])
def test_batches_are_the_same_from_a_store(corpus: Corpus, store: str, workers: int) -> None:
    elsewhere, here = clips_of(corpus), local_clips(corpus)
    pd.testing.assert_frame_equal(elsewhere.drop(columns="path"), here.drop(columns="path"))
    assert check_front_end(elsewhere, 32) == check_front_end(here, 32)
    stub_bytes = sum(Store.read)
    assert_same(batches(elsewhere, workers=workers), batches(here))
    if not workers:  # reads in worker processes are not recorded here
        fetched = sum(Store.read) - stub_bytes
        assert fetched == sum(shard_bytes(corpus))  # each shard once in three epochs
    Store.read.clear()
    clips_of(corpus)
    assert not Store.read  # the stubs exist already


def test_copies_of_a_local_folder(
    corpus: Corpus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = mel_versions(mels_from_environment(corpus.mels, ["toy"]), ["toy"])
    here = batches(local_clips(corpus))
    monkeypatch.setenv("FLAP_MELS_CACHE", str(tmp_path / "cache"))
    assert_same(batches(clips_of(corpus)), here)
    assert len(copies(tmp_path / "cache")) == 3
    assert mel_versions(mels_from_environment(corpus.mels, ["toy"]), ["toy"]) == plain
    elsewhere = shutil.copytree(corpus.mels, tmp_path / "elsewhere")
    shutil.rmtree(corpus.mels)
    for url in (str(elsewhere), f"file://{elsewhere}"):
        monkeypatch.setenv("FLAP_MELS", url)
        assert_same(batches(clips_of(corpus)), here)
        assert mel_versions(mels_from_environment(corpus.mels, ["toy"]), ["toy"]) == plain
    monkeypatch.delenv("FLAP_MELS_CACHE")  # read in place
    assert clips_of(corpus)["path"].str.startswith(str(elsewhere)).all()


def test_copies_keep_within_the_limit(
    corpus: Corpus, store: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    limit, cache, most = int(2.2 * max(shard_bytes(corpus))), tmp_path / "cache", 0
    monkeypatch.setenv("FLAP_MELS_CACHE_GIB", str(limit / 2**30))
    here = batches(local_clips(corpus))
    reserve = shard_copies.reserve

    def watched(*arguments: Any, **options: Any) -> bool:
        nonlocal most
        granted = reserve(*arguments, **options)
        most = max(most, used(cache))
        return granted

    monkeypatch.setattr(shard_copies, "reserve", watched)
    cache_space._warn_of_too_little_space.cache_clear()
    with warnings.catch_warnings(action="error"):
        assert_same(batches(clips_of(corpus)), here)
    assert max(shard_bytes(corpus)) < most <= limit
    with pytest.warns(UserWarning, match="do not fit"):
        found = batches(clips_of(corpus), window=3)
    assert_same(found, batches(local_clips(corpus), window=3))
    assert most <= limit


def test_prefetching_spares_held_copies_and_reading_does_not(
    corpus: Corpus, store: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    limit = int(2.2 * max(shard_bytes(corpus)))
    monkeypatch.setenv("FLAP_MELS_CACHE_GIB", str(limit / 2**30))
    cache_space._warn_of_too_little_space.cache_clear()
    first, second, third = (shard_copy(path) for path in clips_of(corpus)["path"].unique())
    assert first and second and third
    holds = [first.hold(), second.hold()]
    assert first.fetch() and second.fetch()
    assert not third.fetch() and first.path.exists() and second.path.exists()
    mapped = np.memmap(first.open(), np.uint8, mode="r")
    for seconds, copy in enumerate((second, first)):  # the clock of files is coarse
        os.utime(copy.path, (seconds, seconds))
    with pytest.warns(UserWarning, match="FLAP_MELS_CACHE_GIB: the shards .* do not fit"):
        third.open().close()
    assert third.path.exists() and first.path.exists() and not second.path.exists()
    holds[0].close()
    assert second.fetch() and not first.path.exists()
    assert mapped[:4].tobytes() == b"PAR1"


def test_prefetching_is_at_most_two_windows_ahead(
    corpus: Corpus, store: str, tmp_path: Path
) -> None:
    """Each window is one shard."""
    clips, cache = clips_of(corpus), tmp_path / "cache"
    order = PairOrder(np.arange(30) // 10, np.ones(30, int), seed=0, window=1, batch=2)
    plan = iter(with_prefetch(MicroBatches(order, range(2**40)), clips["path"].to_numpy()))
    for batches_dealt, shards in ((1, 2), (6, 3)):
        for _ in range(batches_dealt):
            next(plan)
        deadline = time.monotonic() + 20
        while (
            len(list(cache.glob("*/copies/*/*.parquet"))) < shards and time.monotonic() < deadline
        ):
            time.sleep(0.01)
        time.sleep(0.1)
        assert len(copies(cache)) == shards


def read_everything(corpus: Corpus, log: Path) -> None:
    """Run in a child process: read every row, and log a line for each shard downloaded."""
    download = ShardCopy._download

    def logged(copy: ShardCopy, part: Path) -> None:
        time.sleep(0.2)
        with log.open("a") as file:
            file.write(f"{copy.path.name}\n")
        download(copy, part)

    ShardCopy._download = logged  # type: ignore[method-assign]
    clips = clips_of(corpus)
    assert [len(mel) for mel in MelReader().read_all(clips)] == [30 + i for i in range(30)]


def test_processes_of_a_node_fetch_each_shard_once(
    corpus: Corpus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FLAP_MELS_CACHE", str(tmp_path / "cache"))
    fork = multiprocessing.get_context("fork")
    readers = [
        fork.Process(target=read_everything, args=(corpus, tmp_path / "log")) for _ in range(3)
    ]
    for reader in readers:
        reader.start()
    for reader in readers:
        reader.join()
        assert reader.exitcode == 0
    assert len((tmp_path / "log").read_text().split()) == 3
    assert len(copies(tmp_path / "cache")) == 3


def fetch_forever(path: str) -> None:
    shard_copies.shutil.copyfileobj = lambda *_: time.sleep(60)  # type: ignore[attr-defined]
    copy = shard_copy(path)
    assert copy
    copy.fetch()


def test_the_next_run_removes_the_part_of_a_killed_download(
    corpus: Corpus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = tmp_path / "cache"
    monkeypatch.setenv("FLAP_MELS_CACHE", str(cache))
    path = clips_of(corpus)["path"].iloc[0]
    child = multiprocessing.get_context("fork").Process(target=fetch_forever, args=(path,))
    child.start()
    deadline = time.monotonic() + 20
    while used(cache) < shard_bytes(corpus)[0] and time.monotonic() < deadline:
        time.sleep(0.02)
    clips_of(corpus)
    assert [part.suffix for part in copies(cache)] == [".part"]  # the download is alive
    assert child.pid
    os.kill(child.pid, signal.SIGKILL)
    child.join()
    clips_of(corpus)
    assert copies(cache) == []
    assert len(MelReader().read(path, 0)) == 30


def test_a_failing_store_is_retried_and_then_named(corpus: Corpus, store: str) -> None:
    Store.failures = 3
    path = clips_of(corpus)["path"].iloc[0]
    Store.failures = 3
    assert len(MelReader().read(path, 0)) == 30
    Store.failures = 100
    other = clips_of(corpus)["path"].iloc[-1]
    with pytest.raises(UserError, match=r"mels/toy/shard-00002.*tried 4 times .the store is tired"):
        MelReader().read(other, 0)
    for workers in (0, 1):
        with pytest.raises(UserError, match=r"^counted://mels/toy/shard-\d+.parquet: .* tired\)$"):
            batches(clips_of(corpus), workers=workers)


def test_a_missing_or_changed_shard_is_named(corpus: Corpus, store: str, tmp_path: Path) -> None:
    clips = clips_of(corpus)
    first, *_, last = clips["path"].unique()
    fs, base = fsspec.url_to_fs(store)
    fs.pipe_file(f"{base}/toy/shard-00000.parquet", b"other")
    fs.rm(f"{base}/toy/shard-00002.parquet")
    with pytest.raises(UserError, match=r"shard-00000\.parquet: changed since this run began"):
        MelReader().read(first, 0)
    with pytest.raises(UserError, match=r"counted://mels/toy/shard-00002\.parquet: no such file"):
        MelReader().read(last, 0)
    assert copies(tmp_path / "cache") == []
    with pytest.raises(UserError, match=r"shard-00000\.parquet: not a readable Parquet file"):
        clips_of(corpus)


def test_a_changed_shard_gets_a_new_copy(corpus: Corpus, store: str, tmp_path: Path) -> None:
    assert len(MelReader().read(clips_of(corpus)["path"].iloc[0], 0)) == 30
    before = mel_versions(mels_from_environment(corpus.mels, ["toy"]), ["toy"])
    fs, base = fsspec.url_to_fs(store)
    fs.cp_file(f"{base}/toy/shard-00001.parquet", f"{base}/toy/shard-00000.parquet")
    fs.rm(f"{base}/toy/shard-00002.parquet")
    after = mel_versions(mels_from_environment(corpus.mels, ["toy"]), ["toy"])
    assert after.keys() == before.keys() - {"toy/shard-00002.parquet"}
    assert after["toy/shard-00000.parquet"] != before["toy/shard-00000.parquet"]
    stub = mels_from_environment(corpus.mels, ["toy"]) / "toy/shard-00000.parquet"
    assert len(MelReader().read(str(stub), 0)) == 40


def test_validation_fetches_rows_without_copying_shards(
    corpus: Corpus, store: str, tmp_path: Path
) -> None:
    clips, here = clips_of(corpus, ["val"]), local_clips(corpus, ["val"])
    found = fetch_rows(clips, tmp_path / "validation.parquet")
    assert copies(tmp_path / "cache") == []
    for ours, theirs in zip(MelReader().read_all(found), MelReader().read_all(here), strict=True):
        np.testing.assert_array_equal(ours, theirs)
    Store.read.clear()
    again = fetch_rows(clips, tmp_path / "validation.parquet")
    pd.testing.assert_frame_equal(found, again)
    assert not Store.read
    assert fetch_rows(here, tmp_path / "none.parquet") is here


@pytest.mark.parametrize(
    ("variables", "message"),
    [
        (
            {"FLAP_MELS": "s3://bucket/mels"},
            "FLAP_MELS_CACHE: not set; with FLAP_MELS=s3://bucket/mels",
        ),
        ({"FLAP_MELS": "pigeon://x"}, "FLAP_MELS=pigeon://x: Protocol not known"),
        ({"FLAP_MELS": "memory://x", "FLAP_MELS_CACHE": "cache"}, "memory://x/toy: no such file"),
        ({"FLAP_MELS_CACHE": "/dev/null/x"}, "FLAP_MELS_CACHE=/dev/null/x: Not a directory"),
        (
            {"FLAP_MELS_CACHE": "cache", "FLAP_MELS_CACHE_GIB": "-1"},
            "FLAP_MELS_CACHE_GIB=-1: expected a num",
        ),
        (
            {"FLAP_MELS_CACHE": "cache", "FLAP_MELS_CACHE_GIB": "1T"},
            "FLAP_MELS_CACHE_GIB=1T: expected a num",
        ),
        ({"FLAP_MELS_CACHE": "cache", "FLAP_MELS_CACHE_GIB": "1e-6"}, "_GIB: a shard has .* GiB"),
    ],
)
def test_a_wrong_variable_is_named(
    corpus: Corpus,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    variables: dict[str, str],
    message: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(UserError, match=message):
        mels_from_environment(corpus.mels, ["toy"])


@pytest.mark.slow
def test_training_from_an_s3_store_gives_the_same_model(
    corpus: Corpus, s3: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Stage `pretrain` with a loader worker: MELS on an S3 server and in place, bit by bit."""
    changes = {"loader_workers: 0": "loader_workers: 1"}
    here = project(corpus, epochs=1, dropout=0.0, changes=changes)
    there = shutil.copytree(here, tmp_path / "there", ignore=shutil.ignore_patterns("audio"))
    upload(corpus.mels, f"{s3}/mels")
    monkeypatch.setenv("FLAP_MELS", f"{s3}/mels")
    monkeypatch.setenv("FLAP_MELS_CACHE", str(tmp_path / "cache"))
    output = run_python("-m", "pipeline.pretrain", *ARGUMENTS, folder=there)
    assert "pretrain: 18 clips, 42 pairs, 1 rank(s)" in output
    assert len(copies(tmp_path / "cache")) == 3
    for variable in ("FLAP_MELS", "FLAP_MELS_CACHE"):
        monkeypatch.delenv(variable)
    run_python("-m", "pipeline.pretrain", *ARGUMENTS, folder=here)
    models = [
        {path.name: path.read_bytes() for path in (folder / "data/pretrain/model").iterdir()}
        for folder in (here, there)
    ]
    assert models[0] == models[1] and "model.safetensors" in models[0]


def run_python(*arguments: str, folder: Path) -> str:
    done = subprocess.run(
        [sys.executable, *arguments],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout
