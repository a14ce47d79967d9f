"""Work in progress: resumed after a kill, taken over from what is published, published at once."""

import os
import signal
import threading
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from flap.core.config import Section
from flap.core.errors import UserError
from flap.core.schemas import REJECTS, TAGS
from flap.core.shards import (
    count_rows,
    read_folder,
    read_table,
    shard_paths,
    write_rejects,
    write_rows,
)
from flap.core.work import Work, fingerprint, run_shards


class Settings(Section):
    size: int


def tags(clip_id: str) -> dict[str, object]:
    return {"clip_id": clip_id, "labels": ["Rain"], "scores": [0.5], "tagger_id": "t"}


def reject(clip_id: str) -> dict[str, object]:
    return {"clip_id": clip_id, "split": "", "stage": "audio", "reason": "empty", "detail": ""}


def copy_shard(source: Path, target: Path, log: Path) -> None:
    """Copies TAGS with a side table, and leaves a line for each call."""
    with log.open("a") as file:
        file.write(f"{source.name}\n")
    rows = read_table(source, TAGS).to_pylist()
    write_rejects(target.parent / "_rejects" / target.name, [reject(rows[0]["clip_id"])], {})
    recording = target.parent / "_recordings" / target.stem / "a.wav"
    recording.parent.mkdir(parents=True, exist_ok=True)
    recording.write_text(rows[0]["clip_id"])
    write_rows(target, rows, TAGS, {})


def calls(log: Path) -> list[str]:
    made = sorted(log.read_text().split()) if log.exists() else []
    log.unlink(missing_ok=True)
    return made


NAMES = [f"shard-0000{i}.parquet" for i in range(3)]


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.setenv("FLAP_JOBS", "1")
    for i, name in enumerate(NAMES):
        write_rows(tmp_path / "data/in/x" / name, [tags(str(i))], TAGS, {})
    yield tmp_path / "data"


def run(data: Path, log: Path, identity: str = "f", *, publish: bool = True) -> Work:
    work = Work.open(data / "out/x", identity)
    run_shards(partial(copy_shard, log=log), shard_paths(data / "in/x"), work, "copy")
    if publish:
        work.publish()
    return work


def test_finished_shards_are_found_again_and_published(data: Path, tmp_path: Path) -> None:
    log = tmp_path / "log"
    work = run(data, log, publish=False)
    assert calls(log) == NAMES
    (work.folder / NAMES[1]).unlink()  # as if killed before it was done
    del work
    run(data, log)
    assert calls(log) == NAMES[1:2]
    assert read_folder(data / "out/x", TAGS)["clip_id"].tolist() == ["0", "1", "2"]
    assert count_rows(data / "out/x/_rejects") == 3


def test_what_a_killed_run_made_of_other_inputs_is_gone(data: Path, tmp_path: Path) -> None:
    log = tmp_path / "log"
    run(data, log, publish=False)
    (data / "in/x" / NAMES[2]).unlink()
    run(data, log)
    assert count_rows(data / "out/x") == count_rows(data / "out/x/_rejects") == 2
    assert not (data / "out/x/_recordings/shard-00002").exists()


def test_side_files_of_a_killed_run_are_gone(data: Path, tmp_path: Path) -> None:
    log = tmp_path / "log"
    run(data, log)
    work = Work.open(data / "out/x", "f")
    stale = work.folder / "_rejects" / NAMES[0]
    write_rejects(stale, [reject("0"), reject("1")], {})
    del work
    run(data, log)
    assert count_rows(data / "out/x/_rejects") == 3


def test_what_else_a_stage_left_goes_when_it_is_published(data: Path, tmp_path: Path) -> None:
    work = run(data, tmp_path / "log", publish=False)
    (work.folder.parent / "server.log").write_text("ready")
    (work.folder.parent / "other fingerprint").mkdir()
    work.publish()
    assert list(work.folder.parent.iterdir()) == [work.published_notes]


def test_a_shard_without_its_note_is_made_again(data: Path, tmp_path: Path) -> None:
    """A kill may come between the two; what a shard was made from is then not known."""
    work = run(data, tmp_path / "log", publish=False)
    calls(tmp_path / "log")
    (work.notes / NAMES[2]).unlink()
    del work
    run(data, tmp_path / "log")
    assert calls(tmp_path / "log") == NAMES[2:]


def test_a_new_shard_is_the_only_one_made(data: Path, tmp_path: Path) -> None:
    log = tmp_path / "log"
    run(data, log)
    before = {name: (data / "out/x" / name).stat().st_ino for name in NAMES}
    calls(log)
    write_rows(data / "in/x/shard-00003.parquet", [tags("3")], TAGS, {})
    run(data, log)
    assert calls(log) == ["shard-00003.parquet"]
    assert count_rows(data / "out/x") == count_rows(data / "out/x/_rejects") == 4
    rejects = read_table(data / "out/x/_rejects" / NAMES[0], REJECTS).to_pylist()
    assert rejects == [reject("0")]
    assert (data / "out/x/_recordings/shard-00000/a.wav").read_text() == "0"
    assert {name: (data / "out/x" / name).stat().st_ino for name in NAMES} == before


def test_changed_input_parameters_and_output_are_made_again(data: Path, tmp_path: Path) -> None:
    log = tmp_path / "log"
    run(data, log)
    calls(log)
    write_rows(data / "in/x" / NAMES[0], [tags("zero")], TAGS, {})
    run(data, log)
    assert calls(log) == NAMES[:1]
    (data / "out/x" / NAMES[1]).write_bytes(b"not what was written")
    run(data, log)
    assert calls(log) == NAMES[1:2]
    run(data, log, identity="g")
    assert calls(log) == NAMES


def test_a_shard_that_dvc_linked_anew_is_taken_over(data: Path, tmp_path: Path) -> None:
    """A reflink from DVC's cache has the same bytes and another modification time."""
    work = run(data, tmp_path / "log")
    calls(tmp_path / "log")
    os.utime(work.out / NAMES[0], (1, 1))
    run(data, tmp_path / "log")
    assert calls(tmp_path / "log") == []


def test_output_that_was_removed_is_made_again(data: Path, tmp_path: Path) -> None:
    work = run(data, tmp_path / "log")
    calls(tmp_path / "log")
    (work.out / NAMES[0]).unlink()
    run(data, tmp_path / "log")
    assert calls(tmp_path / "log") == NAMES[:1]


def fail_at_first(source: Path, target: Path, log: Path, how: str) -> None:
    first = source.name not in (log.read_text() if log.exists() else "")
    copy_shard(source, log.with_name("scratch") / source.name, log)
    if first and source.name == NAMES[1]:
        if how == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        raise ConnectionError("the disk went away")
    copy_shard(source, target, log)


@pytest.mark.parametrize("how", ["raise", "kill"])
def test_a_shard_that_fails_is_tried_again(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    monkeypatch.setenv("FLAP_JOBS", "2")
    work = Work.open(data / "out/x", "f")
    function = partial(fail_at_first, log=tmp_path / "log", how=how)
    run_shards(function, shard_paths(data / "in/x"), work, "copy")
    assert count_rows(work.folder) == 3


def fail_always(source: Path, target: Path, error: type[Exception]) -> None:
    if source.name == NAMES[0]:
        raise error("no way")
    write_rows(target, read_table(source, TAGS).to_pylist(), TAGS, {})


def test_a_shard_that_always_fails_does_not_stop_the_others(data: Path) -> None:
    work = Work.open(data / "out/x", "f")
    function = partial(fail_always, error=ValueError)
    with pytest.raises(ValueError, match="no way") as caught:
        run_shards(function, shard_paths(data / "in/x"), work, "copy")
    assert "1 of 3 shards failed 3 times" in caught.value.__notes__[0]
    assert count_rows(work.folder) == 2


def test_an_error_of_the_user_is_not_tried_again(data: Path) -> None:
    work = Work.open(data / "out/x", "f")
    function = partial(fail_always, error=UserError)
    with pytest.raises(UserError):
        run_shards(function, shard_paths(data / "in/x"), work, "copy")
    assert count_rows(work.folder) == 0


def test_second_run_of_a_live_stage_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("flap.core.work._LOCK_SECONDS", 0.3)
    first = Work.open(tmp_path / "data" / "out" / "x", "f")
    with pytest.raises(UserError, match="another run of this stage is still at work"):
        Work.open(tmp_path / "data" / "out" / "x", "f")
    del first
    Work.open(tmp_path / "data" / "out" / "x", "f")


def test_a_run_waits_for_what_a_killed_one_left_behind(tmp_path: Path) -> None:
    first = Work.open(tmp_path / "data" / "out" / "x", "f")
    assert first._lock
    timer = threading.Timer(0.5, first._lock.release)
    timer.start()
    Work.open(tmp_path / "data" / "out" / "x", "f")
    timer.join()


def test_fingerprint_follows_stage_parameters_and_inputs(tmp_path: Path) -> None:
    path = tmp_path / "x"
    path.write_text("1")
    first = fingerprint("audio", [path], Settings(size=1))
    assert fingerprint("audio", [path], Settings(size=1)) == first
    assert fingerprint("tagging", [path], Settings(size=1)) != first
    assert fingerprint("audio", [path], Settings(size=2)) != first
    path.write_text("12")
    assert fingerprint("audio", [path], Settings(size=1)) != first


def test_what_a_killed_run_left_half_written_is_not_published(tmp_path: Path) -> None:
    work = Work.open(tmp_path / "data" / "out" / "x", "f")
    write_rows(work.folder / "shard-00000.parquet", [tags("a")], TAGS, {})
    (work.folder / ".shard-00001.parquet.123.tmp").write_bytes(b"half")
    del work
    again = Work.open(tmp_path / "data" / "out" / "x", "f")
    again.publish()
    assert [path.name for path in again.out.iterdir()] == ["shard-00000.parquet"]
