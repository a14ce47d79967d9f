"""The wheel in a new environment: the model and its processor, without the pipeline's packages."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import FRONT_END
from small_models import save_untrained_flap

ROOT = Path(__file__).parents[1]
SOURCE = ("flap", "pipeline", "pyproject.toml", "README.md", "LICENSE")
USE = """
import importlib.util, sys
import numpy as np, torch
from flap import FlapModel, FlapProcessor

model, processor = (cls.from_pretrained(sys.argv[1]) for cls in (FlapModel, FlapProcessor))
noise = np.random.default_rng(0).normal(0, 0.1, 16000)
with torch.no_grad():
    scores = model(**processor(text=["rain"], audio=noise, sampling_rate=16000)).logits_per_audio
print(scores.shape, [name for name in ("dvc", "prefect", "fastapi", "pandas") if
                     importlib.util.find_spec(name)])
"""


@pytest.mark.engine
@pytest.mark.timeout(900)
def test_the_wheel_brings_the_model_and_not_the_pipeline(tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    for name in SOURCE:
        copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
        copy(ROOT / name, source / name)
    uv(tmp_path, "build", "--quiet", "--wheel", "--out-dir", tmp_path, source)
    model = save_untrained_flap(tmp_path / "model", FRONT_END)
    (wheel,) = tmp_path.glob("*.whl")
    uv(tmp_path, "venv", "--quiet", "--python", sys.executable, "env")
    python = tmp_path / "env/bin/python"
    pins = ROOT / "requirements/main.txt"
    uv(tmp_path, "pip", "install", "--quiet", "--python", python, "--constraint", pins, wheel)
    used = subprocess.run(
        [python, "-c", USE, model], cwd=tmp_path, check=True, capture_output=True, text=True
    )
    assert used.stdout.strip() == "torch.Size([1, 1]) []"


def uv(folder: Path, *arguments: object) -> None:
    """uv with the wheels that pip is configured to use, or torch's CPU build."""
    environ = dict(os.environ)
    wheels = environ.get("UV_FIND_LINKS") or environ.get("PIP_FIND_LINKS")
    environ |= {"UV_FIND_LINKS": wheels} if wheels else {"UV_TORCH_BACKEND": "cpu"}
    environ.pop("VIRTUAL_ENV", None)
    program = Path(sys.executable).with_name("uv")
    subprocess.run([program, *map(str, arguments)], cwd=folder, env=environ, check=True)
