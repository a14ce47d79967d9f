"""DVC's view of this workspace: the stages, their dependencies and outputs, and the scores."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import networkx as nx

from flap.core.errors import UserError
from flap.core.metrics import flatten_metrics


@dataclass(frozen=True)
class Graph:
    """Stages by address (`audio@demo`). Each stage comes after its dependencies."""

    dependencies: dict[str, tuple[str, ...]]
    outs: dict[str, tuple[str, ...]]


def read_graph(targets: Sequence[str] | None = None) -> Graph:
    """The stages of dvc.yaml in the current folder, or only `targets` and their dependencies.

    Args:
        targets: stages, `foreach` groups or outputs, as for `dvc repro`.

    Raises:
        UserError: this folder is no DVC workspace, dvc.yaml is broken, or a target is unknown.
    """
    from dvc.exceptions import DvcException
    from dvc.repo import Repo

    try:
        with Repo() as repo:
            graph = repo.index.graph  # an edge runs from a stage to one that it needs
            wanted = {stage for stage in graph if stage.path_in_repo == "dvc.yaml"}
            if targets:
                found = [s for target in targets for s, _ in repo.stage.collect_granular(target)]
                wanted = set(found).union(*(nx.descendants(graph, stage) for stage in found))
            return _ordered(graph.subgraph(s for s in wanted if s.cmd))
    except DvcException as error:
        raise UserError(f"DVC: {error}") from error


def _ordered(graph: "nx.DiGraph[Any]") -> Graph:
    order = list(
        nx.lexicographical_topological_sort(graph.reverse(), key=lambda stage: stage.addressing)
    )
    needs = {s.addressing: tuple(sorted(n.addressing for n in graph.successors(s))) for s in order}
    outs = {stage.addressing: tuple(str(out) for out in stage.outs) for stage in order}
    return Graph(needs, outs)


def read_scores() -> dict[str, dict[str, float]]:
    """File → score → value, for each file of `dvc metrics show`. Nested scores are named a.b."""
    from dvc.repo import Repo

    with Repo() as repo:
        found = repo.metrics.show().get("", {}).get("data", {})
    files = {
        path: flatten_metrics(entry["data"]) for path, entry in found.items() if "data" in entry
    }
    return {path: files[path] for path in sorted(files)}
