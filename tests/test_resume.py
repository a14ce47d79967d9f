"""The stages `sources` and `audio`, killed and run again on each engine, give the same bytes."""

import hashlib
import json
import os
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from subprocess import Popen

import pytest

from flap.core.config import read_params

ROOT = Path(__file__).parents[1]
N_CLIPS = 150
KILL_AT = (1, 6)  # finished shards of 15
STAGES = {
    "sources": ["pipeline.sources", "demo", "--out", "data/sources/demo"],
    "audio": ["pipeline.audio", "--clips", "data/sources/demo", "--out", "data/audio/demo"],
}


def make_project(folder: Path, n_clips: int) -> Path:
    """Create a project with the parameters of the two stages."""
    folder.mkdir(parents=True)
    catalogue = str(ROOT / "flap/sources/demo/sounds.yaml")
    demo = {"adapter": "demo", "path": catalogue, "watch": catalogue, "seed": 1}
    demo["clips"] = {"train": n_clips - 20, "val": 10, "test": 10}
    audio = read_params(ROOT / "params.yaml")["audio"]
    params = {"datasets": {"demo": demo}, "sources": {"shard_clips": 10}, "audio": audio}
    (folder / "params.yaml").write_text(json.dumps(params))
    return folder


def start(project: Path, stage: str, engine: str) -> Popen[bytes]:
    environment = os.environ | {
        "FLAP_EXECUTOR": engine,
        "FLAP_JOBS": "2",
        "PYTHONPATH": str(ROOT),
    }
    command = [sys.executable, "-m", *STAGES[stage]]
    with (project / f"{stage}.log").open("ab") as log:
        return Popen(
            command, cwd=project, env=environment, stderr=log, stdout=log, start_new_session=True
        )


def wait_for_shards(project: Path, stage: str, number: int, process: Popen[bytes]) -> None:
    """Return when the unpublished work of a stage has at least `number` shards."""
    work, deadline = project / "data/.work" / stage / "demo", time.monotonic() + 120
    while len(list(work.glob("*/shard-*.parquet"))) < number:
        assert process.poll() is None, (project / f"{stage}.log").read_text()
        assert time.monotonic() < deadline, f"{stage}: fewer than {number} shards after 120 s"
        time.sleep(0.01)


def run(project: Path, engine: str, kill_at: Sequence[int] = ()) -> dict[str, str]:
    """Run both stages, and kill each when it has finished so many shards.

    Returns:
        The hash of each published file.
    """
    for stage in STAGES:
        for number in kill_at:
            process = start(project, stage, engine)
            wait_for_shards(project, stage, number, process)
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        process = start(project, stage, engine)
        assert process.wait(240) == 0, (project / f"{stage}.log").read_text()
    return {
        str(path.relative_to(project)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted((project / "data").rglob("*"))
        if path.is_file() and ".work" not in path.parts
    }


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    project = make_project(tmp_path_factory.mktemp("unbroken") / "project", N_CLIPS)
    return run(project, "processes")


@pytest.mark.slow
@pytest.mark.parametrize(
    "engine",
    [
        "processes",
        pytest.param("ray", marks=pytest.mark.engine),
        pytest.param("dask", marks=pytest.mark.engine),
    ],
)
def test_killed_stages_resume_to_the_same_bytes(
    engine: str, tmp_path: Path, unbroken: dict[str, str]
) -> None:
    assert len(unbroken) > N_CLIPS
    found = run(make_project(tmp_path / "project", N_CLIPS), engine, kill_at=KILL_AT)
    assert found == unbroken
