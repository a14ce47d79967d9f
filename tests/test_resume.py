"""The stages `sources` and `audio`, killed and run again, on each engine: the same bytes."""

import hashlib
import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from flap.core.config import read_params

ROOT = Path(__file__).parents[1]
N_CLIPS = 150
STAGES = {
    "sources": ["pipeline.sources", "demo", "--out", "data/sources/demo"],
    "audio": ["pipeline.audio", "--clips", "data/sources/demo", "--out", "data/audio/demo"],
}


def make_project(folder: Path, n_clips: int) -> Path:
    """A folder with the parameters that the two stages need."""
    folder.mkdir(parents=True)
    catalogue = str(ROOT / "flap/sources/demo/sounds.yaml")
    demo = {"adapter": "demo", "path": catalogue, "watch": catalogue, "seed": 1}
    demo["clips"] = {"train": n_clips - 20, "val": 10, "test": 10}
    audio = read_params(ROOT / "params.yaml")["audio"]
    params = {"datasets": {"demo": demo}, "sources": {"shard_clips": 10}, "audio": audio}
    (folder / "params.yaml").write_text(json.dumps(params))
    return folder


def start(project: Path, stage: str, engine: str) -> subprocess.Popen[bytes]:
    environment = os.environ | {
        "FLAP_EXECUTOR": engine,
        "FLAP_JOBS": "2",
        "PYTHONPATH": str(ROOT),
    }
    command = [sys.executable, "-m", *STAGES[stage]]
    with (project / f"{stage}.log").open("ab") as log:
        return subprocess.Popen(
            command, cwd=project, env=environment, stderr=log, stdout=log, start_new_session=True
        )


def run(project: Path, engine: str, kills: int) -> dict[str, str]:
    """Run both stages, killing each `kills` times; the published files' hashes."""
    rng = random.Random(0)
    for stage in STAGES:
        for _ in range(kills):
            process = start(project, stage, engine)
            time.sleep(rng.uniform(2.0, 5.0))
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
    return run(project, "processes", kills=0)


@pytest.mark.slow
@pytest.mark.parametrize("engine", ["processes", "ray", "dask"])
def test_killed_stages_resume_to_the_same_bytes(
    engine: str, tmp_path: Path, unbroken: dict[str, str]
) -> None:
    assert len(unbroken) > N_CLIPS
    assert run(make_project(tmp_path / "project", N_CLIPS), engine, kills=2) == unbroken
