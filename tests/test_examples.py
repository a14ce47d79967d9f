"""Every script of examples/ runs, on models and corpora that a test can afford."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from captions_inputs import write_checkpoint
from conftest import FRONT_END, Corpus
from fake_llm_server import Behaviour, fake_llm_server
from ruamel.yaml import YAML
from small_models import ENCODER, save_untrained_flap
from test_clap import make_clap
from test_processor import tone

from flap.core.config import read_params
from flap.model.tagger import Tagger, save_tagger

soundfile = pytest.importorskip("soundfile")
ROOT = Path(__file__).parents[1]


def run(script: str, *arguments: object, status: int = 0, cwd: Path = ROOT, **environ: str) -> str:
    """What the script prints."""
    path = os.pathsep.join(
        [environ.get("PYTHONPATH", ""), str(ROOT), os.environ.get("PYTHONPATH", "")]
    )
    done = subprocess.run(
        [sys.executable, ROOT / "examples" / script, *map(str, arguments)],
        cwd=cwd,
        env=os.environ | {"FLAP_JOBS": "1"} | environ | {"PYTHONPATH": path},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    assert done.returncode == status, done.stdout[-3000:]
    return done.stdout


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return save_untrained_flap(tmp_path / "model", FRONT_END)


def test_own_recordings_get_enriched_captions(tmp_path: Path) -> None:
    torch.manual_seed(0)
    encoder = ENCODER.model_copy(update={"n_mels": 128})
    save_tagger(tmp_path / "tagger", Tagger(encoder, 2), ("Rain", "Bell"))
    write_checkpoint(tmp_path / "llm")
    params = read_params(ROOT / "params.yaml")
    params["tagging"]["threshold"] = 0.0  # it has learned nothing
    params["captions"]["prompt"] = "few_shot"
    with (tmp_path / "params.yaml").open("w") as file:
        YAML().dump(params, file)
    made = ["--params", tmp_path / "params.yaml", "--tagger", tmp_path / "tagger"]
    made += ["--llm", tmp_path / "llm", "--out", tmp_path / "out"]
    with fake_llm_server(Behaviour()) as url:
        told = run("own_recordings.py", tmp_path / "recordings", *made, FLAP_LLM_ENDPOINTS=url)
    assert sorted(path.name for path in (tmp_path / "recordings").iterdir()) == [
        *("captions.csv", "high.wav", "low.wav", "noise.wav")
    ]
    for name in ("mine/low", "mine/high", "mine/noise"):
        assert f"\n{name} (" in told
    assert "A machine hums." in told and "a machine hums along with" in told


def test_search_prints_the_best_recordings(model: Path, tmp_path: Path) -> None:
    folder = tmp_path / "recordings"
    folder.mkdir()
    for i in range(3):
        soundfile.write(folder / f"{i}.wav", tone(1.0 + i), 16000)
    told = run("search.py", folder, "a bell rings", "--model", model, "--best", 2)
    found = [line.split() for line in told.splitlines() if line.endswith(".wav")]
    assert len(found) == 2 and float(found[0][0]) >= float(found[1][0])


def test_another_flap_is_scored(corpus: Corpus, model: Path) -> None:
    told = run("score_other_model.py", model, "--dataset", "toy", "--data", corpus.data)
    assert "model on toy-test: 6 of 6 clips present" in told
    assert "text_to_audio (12 queries, 6 answers): R@1" in told


def test_a_clap_is_scored_by_the_recordings(corpus: Corpus, tmp_path: Path) -> None:
    clap = make_clap(tmp_path / "clap", fused=False)
    for i in range(30):  # where the corpus says that they are, from the folder of the run
        soundfile.write(tmp_path / f"{i}.wav", tone(0.5 + i / 30, 48000), 48000)
    where = ["--dataset", "toy", "--data", corpus.data, "--params", ROOT / "params.yaml"]
    told = run("score_other_model.py", clap, *where, cwd=tmp_path)
    assert "clap on toy-test: 6 of 6 clips present" in told


def test_captions_are_read_by_pandas_and_duckdb(corpus: Corpus) -> None:
    pytest.importorskip("duckdb")
    told = run("read_captions.py", corpus.captions / "toy")
    assert "of 18 captions kept" in told
    assert "kept_share" in told


def test_without_duckdb_the_way_out_is_told(corpus: Corpus, tmp_path: Path) -> None:
    (tmp_path / "duckdb.py").write_text("raise ModuleNotFoundError('duckdb')\n")
    told = run("read_captions.py", corpus.captions / "toy", status=1, PYTHONPATH=str(tmp_path))
    assert "uv pip install duckdb" in told
