"""The whole graph by real DVC on a tiny demo corpus, with the language model faked over HTTP."""

import hashlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from fake_llm_server import MODEL, Behaviour, fake_llm_server
from ruamel.yaml import YAML

from flap.core.config import read_params
from flap.core.shards import count_rows

ROOT = Path(__file__).parents[1]
TINY: dict[str, dict[str, Any]] = {
    "sources": {"shard_clips": 12},
    "encoder": {"clip_frames": 128, "width": 16, "depth": 1, "heads": 2},
    "tagger": {"epochs": 1, "batch": 8, "warmup_steps": 1},
    "tagging": {"threshold": 0.0, "top_k": 2},
    "llm": {"name": MODEL, "kind": "local", "source": "tiny-llm", "revision": "", "sha256": None},
    "pretrain": {"epochs": 1, "batch": 16, "warmup_steps": 1, "audio_weights": "tagger"},
}
BENCHMARKS = ("demo-test", "demo-zero-shot", "demo-probe")

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]


class Project:
    """A copy of the project in a folder of its own, and DVC to run in it."""

    def __init__(self, folder: Path, endpoint: str) -> None:
        self.folder = folder
        bin_folder = str(Path(sys.executable).parent)
        self._env = os.environ | {
            "PATH": bin_folder + os.pathsep + os.environ["PATH"],
            "FLAP_LLM_ENDPOINTS": endpoint,
            "FLAP_LLM_API_KEY": "any",
        }
        for name in ("flap", "pipeline"):
            shutil.copytree(ROOT / name, folder / name)
        for name in ("dvc.yaml", ".dvcignore"):
            shutil.copy(ROOT / name, folder)
        for name in ("config.json", "tokenizer.json", "model.safetensors"):
            (folder / "tiny-llm").mkdir(exist_ok=True)
            (folder / "tiny-llm" / name).write_text("{}")
        params = read_params(ROOT / "params.yaml")
        params["datasets"]["demo"]["clips"] = {"train": 24, "val": 8, "test": 8}
        params["benchmarks"] = {name: params["benchmarks"][name] for name in BENCHMARKS}
        for section, changes in TINY.items():
            params[section] |= changes
        self.write_params(params)
        self.dvc("init", "--no-scm", "--quiet")
        shutil.copy(ROOT / ".dvc/config", folder / ".dvc/config")
        self.dvc("config", "core.no_scm", "true")

    def write_params(self, params: dict[str, Any]) -> None:
        with (self.folder / "params.yaml").open("w") as file:
            YAML().dump(params, file)

    def change(self, section: str, **values: Any) -> None:
        params = read_params(self.folder / "params.yaml")
        params[section] |= values
        self.write_params(params)

    def dvc(self, *arguments: str) -> str:
        done = subprocess.run(
            [sys.executable, "-m", "dvc", *arguments],
            cwd=self.folder,
            env=self._env,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stdout[-3000:]
        return done.stdout

    def ran(self, *arguments: str) -> set[str]:
        """Stages that `dvc repro` runs, without `code` and without their dataset or benchmark."""
        output = self.dvc("repro", *arguments)
        return {
            line.split("'")[1].split("@")[0]
            for line in output.splitlines()
            if line.startswith("Running stage")
        } - {"code"}


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Project]:
    with fake_llm_server(Behaviour()) as url:
        made = Project(tmp_path_factory.mktemp("project"), url)
        made.dvc("repro")
        yield made


def test_every_row_is_accounted_for(project: Project) -> None:
    data = project.folder / "data"
    clips = pd.read_parquet(data / "sources/demo")
    assert len(clips) == 40 and clips["split"].value_counts().to_dict() == {
        "train": 24,
        "val": 8,
        "test": 8,
    }
    heard = count_rows(data / "audio/demo")
    rejected = count_rows(data / "audio/demo/_rejects")
    assert heard + rejected == 40 and rejected >= 1
    audit = json.loads((project.folder / "metrics/audit.json").read_text())
    assert audit["clips"] == heard and audit["leak"] == 0
    assert count_rows(data / "tagging/demo") == heard
    captions = pd.read_parquet(data / "captions/demo")
    tagged = set(pd.read_parquet(data / "tagging/demo")["clip_id"])
    train = set(clips.loc[clips["split"] == "train", "clip_id"])
    assert set(captions["clip_id"]) == train & tagged
    assert captions["kept"].any() and (captions["kept"] == (captions["reason"] == "")).all()


def test_metrics_are_recomputed_from_ranks(project: Project) -> None:
    ranks = pd.read_parquet(project.folder / "data/retrieval/demo-test")
    found = json.loads((project.folder / "metrics/retrieval/demo-test.json").read_text())
    for direction in ("text_to_audio", "audio_to_text"):
        own = ranks.loc[ranks["direction"] == direction, "rank"]
        for k in (1, 5, 10):
            assert found[direction][f"R@{k}"] == pytest.approx((own <= k).mean(), abs=1e-6)
        assert found[direction]["queries"] == len(own)


def test_report_stands_and_names_the_counts(project: Project) -> None:
    page = (project.folder / "data/report/page/index.html").read_text()
    assert "demo-test" in page and "http://" not in page.replace("http://www.w3.org", "")


def test_nothing_changed_nothing_runs(project: Project) -> None:
    assert project.ran() == set()


def test_a_retrieval_parameter_reruns_retrieval_and_report_only(project: Project) -> None:
    project.change("retrieval", recall_at=[1, 3, 5, 10])
    assert project.ran() == {"retrieval", "report"}


def test_the_prompt_reruns_captions_and_what_follows(project: Project) -> None:
    prompt = project.folder / "flap/captions/prompts/few_shot.yaml"
    prompt.write_text(prompt.read_text() + "# edited\n")
    # The fake's answers are the same, so is the model, and retrieval has nothing new to score.
    assert project.ran() == {"captions", "pretrain", "report"}


def test_no_stage_writes_through_a_link_into_the_cache(project: Project) -> None:
    """DVC links outputs to its cache, and stages take shards over from those links."""
    cache = project.folder / ".dvc/cache/files/md5"
    objects = [path for path in cache.glob("*/*") if path.suffix != ".dir"]
    assert len(objects) > 40
    for path in objects:
        digest = hashlib.md5(path.read_bytes(), usedforsecurity=False).hexdigest()
        assert digest == path.parent.name + path.name


def test_an_unknown_key_is_named_by_the_stage(project: Project) -> None:
    project.change("retrieval", recal_at=[1])
    with pytest.raises(AssertionError, match=r"unknown key .retrieval\.recal_at.; known keys: "):
        project.dvc("repro", "retrieval")
