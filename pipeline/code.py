"""Stage `code`: imports → data/code/STAGE, hashes of the modules that decide each stage's result.

DVC always runs this stage. Another stage runs again if its file in data/code has changed, and
`dvc diff` names that file.
"""

from pathlib import Path

from flap.core.code import ROOT, stage_code
from pipeline.stage import PathOption, run

_NO_STAGE = {"__init__", "code", "stage"}


def main(out: PathOption) -> None:
    """Write one file for each stage. Each line has the hash and name of a module or data file."""
    out.mkdir(parents=True, exist_ok=True)
    stages = stage_names()
    for stage in stages:
        (out / stage).write_text(stage_code(stage))
    for other in set(out.iterdir()) - {out / stage for stage in stages}:
        other.unlink()


def stage_names(root: Path = ROOT) -> list[str]:
    """Module names of the stages in dvc.yaml and experiments/dvc.yaml."""
    folders = (root / "pipeline", root / "pipeline/experiments")
    found = {file.stem for folder in folders for file in folder.glob("*.py")}
    return sorted(found - _NO_STAGE)


if __name__ == "__main__":
    run(main)
