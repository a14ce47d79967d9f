"""Shards: atomic, checked, resumable, published in one step."""

import errno
import os
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from flap.core.errors import UserError
from flap.core.schemas import CLIPS, MELS, REJECTS, TAGS, mel_array, mel_bytes, provenance
from flap.core.shards import (
    atomic_path,
    read_folder,
    read_table,
    shard_paths,
    write_rejects,
    write_rows,
)

REJECT = {"clip_id": "a", "split": "", "stage": "audio", "reason": "empty", "detail": ""}


def tags(clip_id: str) -> dict[str, object]:
    return {"clip_id": clip_id, "labels": ["Rain"], "scores": [0.5], "tagger_id": "t"}


def test_no_rejects_are_no_file(tmp_path: Path) -> None:
    path = tmp_path / "_rejects" / "shard-00000.parquet"
    write_rejects(path, [REJECT], {})
    write_rejects(path, [], {})
    assert not path.exists()
    write_rejects(path, [], {})


def test_round_trip_keeps_rows_and_provenance(tmp_path: Path) -> None:
    path = tmp_path / "shard-00000.parquet"
    write_rows(path, [tags("a"), tags("b")], TAGS, {"threshold": 0.3})
    assert read_table(path, TAGS).to_pylist() == [tags("a"), tags("b")]
    assert provenance(pq.read_schema(path)) == {"threshold": 0.3}
    assert pd.read_parquet(path)["clip_id"].tolist() == ["a", "b"]


def test_equal_rows_give_equal_bytes(tmp_path: Path) -> None:
    for name in ("one", "two"):
        write_rows(tmp_path / name, [tags("a")], TAGS, {})
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()


def test_mel_round_trip() -> None:
    mel_TF = np.arange(6, dtype=np.float32).reshape(3, 2)
    assert np.array_equal(mel_array(mel_bytes(mel_TF), 3), mel_TF)


def test_null_in_a_required_column_is_refused(tmp_path: Path) -> None:
    with pytest.raises((pa.ArrowInvalid, ValueError)):
        write_rows(tmp_path / "x", [REJECT | {"detail": None}], REJECTS, {})
    assert not list(tmp_path.iterdir())


def test_reason_outside_the_closed_set_is_a_bug(tmp_path: Path) -> None:
    with pytest.raises(AssertionError, match="because"):
        write_rejects(tmp_path / "x", [REJECT | {"reason": "because"}], {})


def test_wrong_table_missing_column_and_broken_file_are_named(tmp_path: Path) -> None:
    path = tmp_path / "shard-00000.parquet"
    write_rows(path, [tags("a")], TAGS, {})
    with pytest.raises(UserError, match=r"shard-00000.parquet: is TAGS, expected MELS"):
        read_table(path, MELS)
    pq.write_table(pq.read_table(path).drop_columns(["scores"]), path)
    with pytest.raises(UserError, match="column 'scores' of TAGS is missing"):
        read_table(path, TAGS)
    path.write_bytes(path.read_bytes()[:50])
    with pytest.raises(UserError, match="not a readable Parquet file"):
        read_table(path, TAGS)
    with pytest.raises(UserError, match="no such file"):
        read_table(tmp_path / "shard-00001.parquet", TAGS)


def test_other_version_says_what_to_do(tmp_path: Path) -> None:
    path = tmp_path / "shard-00000.parquet"
    write_rows(path, [tags("a")], TAGS, {})
    table = pq.read_table(path)
    older = {**table.schema.metadata, b"flap.version": b"0"}
    pq.write_table(table.replace_schema_metadata(older), path)
    with pytest.raises(UserError, match="version 0, this code reads 1; rerun"):
        read_table(path, TAGS)


def test_failed_write_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError), atomic_path(tmp_path / "x") as temporary:
        temporary.write_text("half")
        raise RuntimeError
    assert not list(tmp_path.iterdir())


def test_full_disk_names_the_shard(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(UserError, match=r"shard-00007.parquet: no space left on the disk"):
        write_rows(tmp_path / "shard-00007.parquet", [tags("a")], TAGS, {})
    assert not list(tmp_path.iterdir())


def test_side_tables_are_invisible_to_parquet_readers(tmp_path: Path) -> None:
    write_rows(tmp_path / "shard-00000.parquet", [tags("a")], TAGS, {})
    write_rejects(tmp_path / "_rejects" / "shard-00000.parquet", [REJECT], {})
    assert pd.read_parquet(tmp_path)["clip_id"].tolist() == ["a"]


def test_folder_without_shards_says_what_to_run(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="dvc repro"):
        shard_paths(tmp_path)
    with pytest.raises(UserError, match="dvc repro"):
        read_folder(tmp_path, CLIPS)


def test_long_values_end_a_row_group_early(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("flap.core.shards._GROUP_BYTES", 1000)
    row = dict.fromkeys(MELS.schema({}).names, 0) | {"mel": bytes(600), "loudness_lufs": None}
    row |= dict.fromkeys(("clip_id", "sha256", "mel_xxh3"), "x")
    write_rows(tmp_path / "x.parquet", [row] * 5, MELS, {})
    assert pq.read_metadata(tmp_path / "x.parquet").num_row_groups == 3
