"""What is told of a search: worked by hand, and as the page shows it."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from orchestration.keep.provenance import write_sweep
from orchestration.plan.spec import SweepSpec
from orchestration.plan.sweep_file import resolved
from orchestration.plan.trials import Trial
from orchestration.report import write_report
from orchestration.results.merging import merge
from orchestration.results.reading import Results, read_results
from orchestration.results.searching import hypervolume, searched, under
from tests.support.searching import Truth, run_search, smooth, write_sweep_file

TWO = {"average_accuracy": "maximize", "forgetting": "minimize"}


def done(folder: Path, spec: SweepSpec, truth: Truth = smooth) -> Results:
    run_search(spec, folder / "run", 3, random.Random(0), truth)
    write_sweep(folder / "run", resolved(spec), {})
    return read_results(folder / "run")


@pytest.mark.parametrize(
    ("points", "area"),
    [
        ([], 0.0),
        ([(2.0, 3.0)], 6.0),
        ([(2.0, 3.0), (1.0, 1.0)], 6.0),  # within the first
        ([(2.0, 1.0), (1.0, 3.0)], 4.0),  # 2 x 1 and 1 x 2 above it
        ([(2.0, 1.0), (1.0, 3.0), (1.0, 3.0)], 4.0),
        ([(0.0, 5.0)], 0.0),  # no better than the reference in one
    ],
)
def test_hypervolume(points: list[tuple[float, ...]], area: float) -> None:
    assert hypervolume(points, (0.0, 0.0)) == pytest.approx(area)
    assert hypervolume(points[::-1], (0.0, 0.0)) == pytest.approx(area)


def test_front_best_and_volumes_of_a_search(tmp_path: Path) -> None:
    search = {"kind": "random", "trials": 16, "objectives": TWO, "constraints": {"forgetting": 0.2}}
    found = searched(done(tmp_path, write_sweep_file(tmp_path, search=search)))
    assert found is not None
    assert [one.number for one in found.found] == list(range(16))
    assert {one.state for one in found.found} == {"complete"}
    for one in found.complete:
        (row,) = one.rows
        assert one.objectives == {name: row[f"validation/{name}"] for name in TWO}
        assert one.feasible == (one.objectives["forgetting"] <= 0.2)
    assert 0 < len(found.feasible) < 16
    best = found.best(found.feasible, "average_accuracy")
    assert best is not None
    assert best.objectives["average_accuracy"] == max(one.objectives["average_accuracy"] for one in found.feasible)
    for one in found.feasible:
        beaten = [
            other
            for other in found.feasible
            if other.objectives["average_accuracy"] > one.objectives["average_accuracy"]
            and other.objectives["forgetting"] < one.objectives["forgetting"]
        ]
        assert bool(beaten) <= (one not in found.front)
        assert one in found.front or any(
            other.objectives["average_accuracy"] >= one.objectives["average_accuracy"]
            and other.objectives["forgetting"] <= one.objectives["forgetting"]
            for other in found.front
        )
    assert found.volumes is not None
    assert found.volumes == sorted(found.volumes)
    assert found.by_order == {}


def test_the_best_setting_of_an_order_is_shown_under_the_others(tmp_path: Path) -> None:
    axes = {"train.lr": [0.01, 0.03, 0.1], "order": {"kind": "reverse"}}

    def truth(trial: Trial) -> list[list[float]]:
        first = trial.experiment.order[0] == "caption"
        value = {0.01: 0.9 if first else 0.1, 0.03: 0.6, 0.1: 0.1 if first else 0.8}[
            float(str(trial.settings["train.lr"]))
        ]
        return [[value, 0.1], [value, value]]

    search = {"kind": "random", "trials": 3}
    spec = write_sweep_file(tmp_path, axes=axes, search=search, robust={"statistic": "worst"})
    results = done(tmp_path, spec, truth)
    found = searched(results)
    assert found is not None
    chosen = found.best(found.feasible, "average_accuracy")
    assert chosen is not None
    assert chosen.values == {"train.lr": 0.03}
    alone = {order.split(">")[0]: one for order, one in found.by_order.items()}
    other = next(name for name in alone if name != "caption")
    assert alone["caption"].values == {"train.lr": 0.01}
    assert alone[other].values == {"train.lr": 0.1}
    assert under(alone["caption"], "average_accuracy", results.orders) == pytest.approx(0.5)
    page = write_report(tmp_path / "run").read_text()
    assert (
        "a setting&#39;s value is the worst over orders and seeds" in page or "a setting's value is the worst" in page
    )
    assert "The best setting of each order alone, under the others" in page


def test_a_grid_has_no_search(tmp_path: Path) -> None:
    spec = write_sweep_file(tmp_path, axes={"train.lr": [0.01, 0.1]})
    assert searched(done(tmp_path, spec, lambda trial: [[0.5, 0.1], [0.5, 0.5]])) is None
    assert "The search" not in write_report(tmp_path / "run").read_text()


def test_searches_of_several_runs_are_not_one(tmp_path: Path) -> None:
    runs = []
    for seed in (0, 1):
        folder = tmp_path / str(seed)
        folder.mkdir()
        spec = write_sweep_file(folder, name=f"s{seed}", search={"kind": "random", "trials": 4, "seed": seed})
        run_search(spec, folder / "run", 2, random.Random(0))
        write_sweep(folder / "run", resolved(spec), {"data": {}, "weights": "w"})
        runs.append(folder / "run")
    merged = merge(runs, tmp_path / "both")
    assert len(merged.trials) == 8
    assert searched(merged) is None
