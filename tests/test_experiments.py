"""Experiments: rows as changes, their scores over seeds, and the page."""

from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from flap.core.config import load_section, read_params
from flap.core.errors import UserError
from flap.core.schemas import RANKS
from flap.core.shards import shard_name, write_rows
from flap.experiments.config import ExperimentsConfig
from flap.experiments.cost import row_gflops
from flap.experiments.page import Study, write_page
from flap.experiments.results import row_scores
from flap.experiments.variant import variant
from flap.pretrain.config import PretrainConfig
from flap.retrieval.config import RetrievalConfig
from pipeline.experiments import variant as stage

ROOT = Path(__file__).parents[1]
ROWS = load_section(ROOT / "experiments/rows.yaml", "experiments", ExperimentsConfig)
PARAMS = read_params(ROOT / "params.yaml")
RETRIEVAL = load_section(ROOT / "params.yaml", "retrieval", RetrievalConfig).model_copy(
    update={"resamples": 50}
)


@pytest.fixture(scope="module")
def variants(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("data") / "variant"
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(ROOT)
        stage.main(ROOT / "experiments/rows.yaml", out)
    return out


def test_every_row_of_the_papers_tables_is_there() -> None:
    two, three = ROWS.tables
    assert list(two.rows) == [str(number) for number in range(1, 8)]
    assert list(three.rows) == [str(number) for number in range(1, 11)]
    assert len({row for rows in ROWS.figure.series.values() for row in rows}) >= 9
    assert all(len(ROWS.seeds_of(two.rows[number])) >= 3 for number in "2357")
    assert len(set(ROWS.runs)) == len(ROWS.runs)


def test_a_run_is_the_parameters_with_its_changes(variants: Path) -> None:
    assert {path.stem for path in variants.iterdir()} == set(ROWS.runs)
    one, other = (
        load_section(variants / f"{name}.yaml", "pretrain", PretrainConfig)
        for name in ("2d-1", "2d-doubled-2")
    )
    assert (one.seed, other.seed) == (1, 2)
    assert (one.mask.kind, one.batch, other.batch) == ("2d", 64, 128)
    differing = {k for k, v in one.model_dump().items() if v != other.model_dump()[k]}
    assert differing == {"seed", "batch"}
    fused = read_params(variants / "2d-fusion-0.yaml")
    assert fused["model"] == PARAMS["model"] | {"fusion": True}


def changed(**changes: Any) -> ExperimentsConfig:
    return ExperimentsConfig.model_validate(ROWS.model_dump() | changes)


def test_unknown_keys_rows_and_benchmarks_are_named() -> None:
    with pytest.raises(UserError, match=r"no-mask: params\.yaml has no key 'pretrain\.epoch' "):
        variant(PARAMS, changed(changes={"pretrain.epoch": 3}), "no-mask", 0)
    with pytest.raises(UserError, match="has no 'demo-text'; there are: demo-val"):
        variant(PARAMS, changed(benchmarks=["demo-text"]), "no-mask", 0)
    with pytest.raises(UserError, match="'demo-probe' is not a retrieval task"):
        variant(PARAMS, changed(benchmarks=["demo-probe"]), "no-mask", 0)
    with pytest.raises(ValueError, match="'rows' has no 3d"):
        changed(runs=[*ROWS.runs, "3d-0"])
    with pytest.raises(ValueError, match="'runs' has no run of 2d-10"):
        changed(runs=[run for run in ROWS.runs if run != "2d-10-0"])
    with pytest.raises(ValueError, match="should match pattern"):
        changed(runs=["2d"])
    with pytest.raises(ValueError, match="1d-20, which is not a row of it"):
        changed(tables=[ROWS.tables[0].model_dump() | {"beside": "1d-20"}])


def test_a_recall_that_the_tables_need_and_params_lack_is_named(tmp_path: Path) -> None:
    text = (ROOT / "params.yaml").read_text().replace("[1, 5, 10]", "[1, 5]")
    (tmp_path / "params.yaml").write_text(text)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(stage, "PARAMS", tmp_path / "params.yaml")
        with pytest.raises(UserError, match=r"add 1, 10 to retrieval\.recall_at"):
            stage.main(ROOT / "experiments/rows.yaml", tmp_path / "variant")


def test_higher_mask_ratios_cost_less(variants: Path) -> None:
    for rows in ROWS.figure.series.values():
        costs = [row_gflops(variants / f"{row}-0.yaml") for row in rows]
        assert all(more > less for more, less in pairwise(costs))


def write_ranks(folder: Path, run: str, ranks: list[int]) -> None:
    """Five queries per clip, with the same ranks in both directions."""
    rows = [
        {"benchmark": "demo-test", "direction": direction, "query_id": f"{i}", "ties": 0}
        | {"clip_id": f"{i // 5}", "rank": rank, "positions": [rank], "candidates": 50}
        for direction in ("text_to_audio", "audio_to_text")
        for i, rank in enumerate(ranks)
    ]
    write_rows(folder / f"{run}-demo-test" / shard_name(0), rows, RANKS, {})


@pytest.fixture
def ranks(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    for run in ROWS.runs:
        write_ranks(tmp_path / "score", run, rng.integers(1, 50, 100).tolist())
    return tmp_path / "score"


def test_a_row_is_the_mean_of_its_seeds(ranks: Path) -> None:
    found = row_scores(ranks, ROWS, "2d", "demo-test", "text_to_audio", RETRIEVAL)
    tables = [pd.read_parquet(ranks / f"2d-{seed}-demo-test") for seed in ROWS.seeds_of("2d")]
    each = [(t["rank"][t["direction"] == "text_to_audio"] <= 10).mean() for t in tables]
    score = found.estimate("R@10")
    assert score.mean == pytest.approx(np.mean(each))
    assert score.seed_std == pytest.approx(np.std(each, ddof=1))
    assert score.interval["low"] < score.mean < score.interval["high"]
    once = row_scores(ranks, ROWS, "2d-10", "demo-test", "text_to_audio", RETRIEVAL)
    assert once.estimate("R@10").seed_std is None
    difference = found.difference(once, "R@10")
    assert difference.mean == pytest.approx(score.mean - once.estimate("R@10").mean)
    assert found.difference(found, "R@10").interval == {"low": 0.0, "high": 0.0}


def test_seeds_scored_on_different_clips_are_an_error(ranks: Path) -> None:
    write_ranks(ranks, "2d-1", [1] * 50)
    with pytest.raises(UserError, match="scored on different clips"):
        row_scores(ranks, ROWS, "2d", "demo-test", "text_to_audio", RETRIEVAL)


def test_the_page_holds_both_tables_the_figure_and_the_papers_numbers(
    ranks: Path, variants: Path, tmp_path: Path
) -> None:
    histories = tmp_path / "history"
    histories.mkdir()
    for run in ROWS.runs:
        history = "step,epoch,val_recall_at_10\n1,0.5,\n2,1.0,0.5\n3,1.5,0.75\n"
        (histories / f"{run}.csv").write_text(history)
    study = Study(ROWS, RETRIEVAL, variants, ranks, histories)
    for out in (tmp_path / "one", tmp_path / "other"):
        write_page(study, "Five sentences.", out)
    page = (tmp_path / "one/README.md").read_text()
    for table in ROWS.tables:
        for number, row in table.rows.items():
            assert f"| {number} | {ROWS.rows[row].says} |" in page
    assert "| 41.5, 53.0, 20.3, 25.5 |" in page
    assert "Five sentences." in page
    names = {"README.md", "curves.svg", "figure-demo-test.svg"}
    for name in names:
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "other" / name).read_bytes()
    assert {path.name for path in (tmp_path / "one").iterdir()} == names
