"""params.yaml and a row's changes → the parameters of a run."""

import copy
from typing import Any

from flap.core.errors import UserError
from flap.experiments.config import ExperimentsConfig

SECTIONS = ("benchmarks", "datasets", "encoder", "model", "pretrain", "retrieval")


def variant(
    params: dict[str, Any], config: ExperimentsConfig, row: str, seed: int
) -> dict[str, Any]:
    """The sections for training and scoring, with the changes of all rows and then the row's own.

    Raises:
        UserError: a change names an unknown key, or a benchmark is unknown or not of retrieval.
    """
    found = {name: copy.deepcopy(params[name]) for name in SECTIONS}
    found["benchmarks"] = {
        name: _benchmark(params, name) | {"model": {"kind": "flap"}} for name in config.benchmarks
    }
    for key, value in (config.changes | config.rows[row].changes).items():
        section, _, name = key.partition(".")
        if name not in found.get(section, {}):
            raise UserError(f"experiments.rows.{row}: params.yaml has no key '{key}' to change")
        found[section][name] = copy.deepcopy(value)
    found["pretrain"]["seed"] = seed
    return found


def _benchmark(params: dict[str, Any], name: str) -> dict[str, Any]:
    if name not in params["benchmarks"]:
        known = ", ".join(params["benchmarks"])
        raise UserError(f"experiments.benchmarks: params.yaml has no '{name}'; there are: {known}")
    if params["benchmarks"][name]["task"] != "retrieval":
        raise UserError(f"experiments.benchmarks: '{name}' is not a retrieval task; name another")
    return dict(params["benchmarks"][name])
