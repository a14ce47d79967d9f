"""Experiments, stage `variant`: params.yaml and the rows' changes → the parameters of every run."""

import shutil

from ruamel.yaml import YAML

from flap.config import load_section, read_params
from flap.experiments.config import ExperimentsConfig
from flap.experiments.variant import variant
from flap.model.config import ModelConfig
from flap.pretrain.config import PretrainConfig
from flap.shards import atomic_path
from pipeline.stage import PARAMS, PathOption, run


def main(rows: PathOption, out: PathOption) -> None:
    """Write OUT/<row>-<seed>.yaml for each run; every one is checked before any is trained."""
    config = load_section(rows, "experiments", ExperimentsConfig)
    params = read_params(PARAMS)
    shutil.rmtree(out, ignore_errors=True)
    for name, (row, seed) in config.runs.items():
        path = out / f"{name}.yaml"
        with atomic_path(path) as temporary, temporary.open("w") as file:
            YAML(typ="safe", pure=True).dump(variant(params, config, row, seed), file)
        load_section(path, "pretrain", PretrainConfig)
        load_section(path, "model", ModelConfig)
    print(f"variant: {len(config.runs)} runs of {len(config.rows)} rows")


if __name__ == "__main__":
    run(main)
