"""Experiments, stage `variant`: params.yaml and the rows' changes → the parameters of every run."""

import shutil
from pathlib import Path

from ruamel.yaml import YAML

from flap.core.config import load_section, read_params
from flap.core.errors import UserError
from flap.core.shards import atomic_path
from flap.experiments.config import ExperimentsConfig, split_run
from flap.experiments.variant import variant
from flap.model.config import EncoderConfig, ModelConfig
from flap.pretrain.config import PretrainConfig
from flap.retrieval.config import BenchmarksConfig, RetrievalConfig
from flap.sources.config import DatasetsConfig
from pipeline.stage import PARAMS, PathOption, run


def main(rows: PathOption, out: PathOption) -> None:
    """Write OUT/<row>-<seed>.yaml for each run, and check each file."""
    config = load_section(rows, "experiments", ExperimentsConfig)
    params = read_params(PARAMS)
    shutil.rmtree(out, ignore_errors=True)
    for name in config.runs:
        row, seed = split_run(name)
        path = out / f"{name}.yaml"
        with atomic_path(path) as temporary, temporary.open("w") as file:
            YAML(typ="safe", pure=True).dump(variant(params, config, row, seed), file)
        _check(path)
    print(f"variant: {len(config.runs)} runs of {len(config.rows)} rows")


def _check(path: Path) -> None:
    load_section(path, "datasets", DatasetsConfig)
    load_section(path, "encoder", EncoderConfig)
    load_section(path, "model", ModelConfig)
    load_section(path, "pretrain", PretrainConfig)
    load_section(path, "benchmarks", BenchmarksConfig)
    retrieval = load_section(path, "retrieval", RetrievalConfig)
    if not {1, 10} <= set(retrieval.recall_at):
        raise UserError(f"{path}: the tables show R@1 and R@10; add 1, 10 to retrieval.recall_at")


if __name__ == "__main__":
    run(main)
