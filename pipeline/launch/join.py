"""Join a training run as a further node, with the command of the stage `pretrain` in dvc.yaml.

    FLAP_NNODES=2 FLAP_HEAD=10.0.0.1:29400 python -m pipeline.launch.join

The first node runs `dvc repro` with the same variables. All nodes share the project's folder.
`python -m pipeline.launch --help` lists the variables.
"""

import shlex
import sys
from pathlib import Path

from flap.core.config import read_params
from pipeline.launch.launcher import launch
from pipeline.stage import report_errors


def main() -> None:
    """`python -m pipeline.launch.join`"""
    if sys.argv[1:]:
        print(__doc__)
        return
    stage = read_params(Path("dvc.yaml"))["stages"]["pretrain"]["cmd"]
    python, flag, launcher, module, *arguments = shlex.split(stage)
    assert (python, flag, launcher) == ("python", "-m", "pipeline.launch"), stage
    launch(module, arguments, joins=True)


if __name__ == "__main__":
    with report_errors():
        main()
