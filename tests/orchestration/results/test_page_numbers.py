"""What the report shows, worked out again from the cells by code of its own: `independent`."""

from __future__ import annotations

import itertools
import math
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from mcit_core.metrics import CATALOGUE, summarise
from orchestration.keep.tables import Row
from orchestration.results.comparisons import compare
from orchestration.results.importance import importance
from orchestration.results.order_effects import order_effects
from orchestration.results.pareto import front_settings, setting_ellipse
from orchestration.results.ranks import ranks
from orchestration.results.reading import Results, read_results
from orchestration.results.settings import Setting, rows_by_setting, settings_summary
from tests.orchestration.results.independent import (
    HEADLINE,
    METRICS,
    Key,
    Run,
    all_resamples,
    eta,
    holm,
    mean_and_half,
    p_of,
    place,
    t_quantile,
)
from tests.orchestration.results.test_results import AXIS, cells, trial, write_run
from tests.support.places import ROOT

DATA = ROOT / "docs" / "data"
#: with their cells, which is why these two have an accuracy.parquet
WITH_CELLS = ["threshold_other", "cpus"]
NAMES = [*WITH_CELLS, "threshold", "pool", "compare"]
ORDERS = ("a>b>c", "b>c>a", "c>a>b", "c>b>a")


@cache
def both(name: str) -> tuple[Run, Results]:
    return Run(DATA / name), read_results(DATA / name)


def key_of(run: Run, setting: Setting) -> Key:
    values = {"method": setting.method, **dict(setting.values)}
    return tuple(values.get(column) for column in run.columns)


def orders_run(folder: Path) -> tuple[Run, Results]:
    """Two settings and their sequential under four orders, which are no Latin square, with cells drawn at random."""
    rng = np.random.default_rng(0)
    rows, accuracy = [], []
    for value, seed, order in itertools.product((0.5, 0.99, None), range(4), ORDERS):
        row = trial(f"{value}-{seed}-{order}", "fwd_prompt" if value else "sequential", seed, order) | {AXIS: value}
        matrix = rng.integers(0, 51, (3, 3)) / 50
        matrix = (matrix + 0.1 * (value or 0)).tolist()
        before = (rng.integers(0, 11, 3) / 50).tolist()
        known = {name: number for name, number in summarise(matrix, before).items() if name in CATALOGUE}
        rows.append(row | known)
        accuracy += cells(row, matrix, before)
    axes = {AXIS: [0.5, 0.99], "order": [order.split(">") for order in ORDERS]}
    write_run(folder, rows, accuracy, axes=axes)
    return Run(folder), read_results(folder)


@pytest.fixture(params=[*NAMES, "orders"])
def found(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[Run, Results]:
    return orders_run(tmp_path / "orders") if request.param == "orders" else both(request.param)


@pytest.mark.parametrize("name", WITH_CELLS)
def test_the_trials_metrics_are_those_of_their_cells(name: str) -> None:
    run, _ = both(name)
    assert run.cells
    for row in run.trials:
        for metric, value in run.values.get(row["trial"], {}).items():
            assert row[metric] == pytest.approx(value, abs=1e-12), (row["trial"], metric)
    told = {metric for values in run.values.values() for metric, value in values.items() if value is not None}
    assert told >= set(METRICS)


@pytest.mark.parametrize("name", WITH_CELLS)
def test_cells_and_trials_were_written_together(name: str) -> None:
    marks = [
        pq.read_schema(DATA / name / f"{table}.parquet").metadata[b"mcit.together"] for table in ("trials", "accuracy")
    ]
    assert marks[0] == marks[1]


def test_means_and_intervals(found: tuple[Run, Results]) -> None:
    run, results = found
    seen = 0
    for summary in settings_summary(results.trials, results.axes, results.design):
        if not run.is_sequence({"method": summary.setting.method}):
            continue
        for metric in METRICS:
            values = [*run.by_seed(key_of(run, summary.setting), metric).values()]
            assert summary.metric(metric).n == len(values)
            if len(values) > 2:
                shown = (summary.metric(metric).mean, summary.metric(metric).half_width)
                assert shown == pytest.approx(mean_and_half(values), abs=1e-9), (summary.setting, metric)
                seen += 1
    assert seen >= 10


def test_differences_from_sequential_and_holm(found: tuple[Run, Results]) -> None:
    run, results = found
    compared = compare(results.trials, results.axes, results.design)
    known: dict[Key, list[float]] = {
        (key, metric): values for metric in HEADLINE for key, values in run.against_sequential(metric).items() if values
    }
    numeric = [
        axis for axis in run.axes if all(isinstance(key[run.columns.index(axis)], int | float) for key in run.studied())
    ]
    known |= {(axis, metric): values for axis in numeric for metric in HEADLINE if (values := run.along(axis, metric))}
    some = {name: values for name, values in known.items() if len(set(np.round(values, 12))) > 1}
    corrected = dict(zip(some, holm([p_of(values) for values in some.values()]), strict=True))
    shown: dict[Key, Any] = {(key_of(run, one.setting), one.metric): one for one in compared.with_sequential}
    shown |= {(one.axis, one.metric): one for one in compared.contrasts}
    assert {name for name, one in shown.items() if one.difference.n} == set(known)
    for name, values in known.items():
        one = shown[name]
        mean, half = mean_and_half(values)
        assert one.difference.mean == pytest.approx(mean, abs=1e-9)
        assert one.difference.interval == pytest.approx((mean - half, mean + half), abs=1e-9)
        if name in some:
            assert one.p_holm == pytest.approx(corrected[name], abs=1e-9)


@pytest.mark.parametrize("metric", ["average_accuracy", "forgetting"])
def test_ranks(found: tuple[Run, Results], metric: str) -> None:
    run, results = found
    shown = ranks(results.trials, results.axes, metric, results.design).value
    assert shown is not None
    table = np.array([[*run.by_seed(key, metric).values()] for key in run.studied()])
    higher = metric == "average_accuracy"
    wanted = dict(zip(run.studied(), place(table.mean(1).tolist(), higher), strict=True))
    assert {key_of(run, one.setting): one.rank for one in shown.ranks} == wanted
    # every resample there is, where the project draws 2,000 of them
    exact = all_resamples(table, higher)
    tops = exact == exact.min(1, keepdims=True)
    best = dict(zip(run.studied(), (tops / tops.sum(1, keepdims=True)).mean(0), strict=True))
    for one in shown.ranks:
        mine = exact[:, run.studied().index(key_of(run, one.setting))]
        assert one.best == pytest.approx(best[key_of(run, one.setting)], abs=4 * math.sqrt(0.25 / 2000))
        assert ((mine >= one.low) & (mine <= one.high)).mean() >= 0.93
        # and no wider than it must be: what is beyond or at either end is more than 2.5 %, but for the draw's error
        assert (mine <= one.low).mean() >= 0.015
        assert (mine >= one.high).mean() >= 0.015


def test_front(found: tuple[Run, Results]) -> None:
    run, results = found
    places = {}
    for key in run.studied():
        x, y = ([*run.by_seed(key, name).values()] for name in ("forgetting", "average_accuracy"))
        places[key] = (round(sum(x) / len(x), 9), round(sum(y) / len(y), 9))
    wanted = {
        key
        for key, (x, y) in places.items()
        if not any(a <= x and b >= y and (a, b) != (x, y) for a, b in places.values())
    }
    studied = [
        one for one in settings_summary(results.trials, results.axes, results.design) if not one.setting.is_reference
    ]
    assert {key_of(run, one) for one in front_settings(studied)} == wanted


def test_regions_of_two_means(found: tuple[Run, Results]) -> None:
    """The corners' T² is 2 (n - 1) / (n - 2) F, F from a printed table."""
    run, results = found
    printed = {4: 19.0, 5: 9.5521}
    for setting, rows in rows_by_setting(results.finished, results.axes).items():
        if setting.is_reference:
            continue
        x, y = (
            np.array([*run.by_seed(key_of(run, setting), name).values()]) for name in ("forgetting", "average_accuracy")
        )
        n = len(x)
        region = setting_ellipse(rows, results.design).value
        assert region is not None
        assert (region.centre, region.n) == (pytest.approx((x.mean(), y.mean()), abs=1e-9), n)
        a, b = x - x.mean(), y - y.mean()
        xx, xy, yy = (a @ a / (n - 1), a @ b / (n - 1), b @ b / (n - 1))
        if xx * yy - xy * xy < 1e-12:  # on a line, which has no T²
            assert np.linalg.matrix_rank(np.array(region.polygon) - region.centre, tol=1e-6) < 2
            continue
        for p, q in region.polygon:
            u, v = p - x.mean(), q - y.mean()
            square = n * (yy * u * u - 2 * xy * u * v + xx * v * v) / (xx * yy - xy * xy)
            assert square == pytest.approx(2 * (n - 1) / (n - 2) * printed[n], rel=1e-4)


def test_shares_of_variance() -> None:
    run, results = both("pool")
    shown = importance([{**row, "validation/average_accuracy": None} for row in results.trials], results.axes).value
    assert shown is not None
    assert shown.metric == "average_accuracy"
    for one in shown.axes:
        column = run.columns.index(one.axis)
        groups: dict[object, list[float]] = {}
        for key in run.studied():
            groups.setdefault(key[column], []).extend(run.by_seed(key, "average_accuracy").values())
        assert one.variance == pytest.approx(eta([*groups.values()]), abs=1e-9)
    seeds = [[run.by_seed(key, "average_accuracy")[seed] for key in run.studied()] for seed in range(5)]
    assert shown.seed_variance == pytest.approx(eta(seeds), abs=1e-9)


def independent_places(run: Run, rows: list[Row], what: str) -> dict[int, list[float]]:
    """Position -> each seed's mean over tasks of the value there minus the task's mean over positions."""
    found: dict[int, list[float]] = {}
    for seed in sorted({int(str(row["seed"])) for row in rows}):
        values: dict[str, dict[int, list[float]]] = {}
        for row in rows:
            tasks = str(row["order"]).split(">")
            r: Any = run.matrix(row)
            for j, task in enumerate(tasks if row["seed"] == seed else []):
                peak = max((r[t][j] for t in range(j, 2)), default=None)
                value = {"final": r[2][j], "learning": r[j][j], "forgetting": None if peak is None else peak - r[2][j]}[
                    what
                ]
                if value is not None:
                    values.setdefault(task, {}).setdefault(j, []).append(value)
        for j in range(3):
            parts = [
                np.mean(places[j]) - np.mean([np.mean(here) for here in places.values()])
                for places in values.values()
                if j in places and len(places) > 1
            ]
            if parts:
                found.setdefault(j, []).append(float(np.mean(parts)))
    return found


def test_effects_of_place_and_predecessor(tmp_path: Path) -> None:
    run, results = orders_run(tmp_path / "orders")
    for rows in rows_by_setting(results.finished, results.axes).values():
        shown = order_effects(rows, results.stages, results.design.every).value
        assert shown is not None
        assert (shown.seeds, shown.orders) == (4, 4)
        for what, effects in shown.places.items():
            wanted = independent_places(run, rows, what)
            assert [one.position for one in effects] == sorted(wanted)
            for one in effects:
                assert one.effect.values == pytest.approx(wanted[one.position], abs=1e-9)
                assert one.effect.half_width == pytest.approx(mean_and_half(wanted[one.position])[1], abs=1e-9)
        check_predecessors(run, rows, shown.predecessors.tasks, shown.predecessors)


def check_predecessors(run: Run, rows: list[Row], tasks: tuple[str, ...], shown: Any) -> None:
    for (p, previous), (j, task) in itertools.product(enumerate(tasks), repeat=2):
        after: dict[str, dict[int, list[float]]] = {}
        for row in rows:
            names = str(row["order"]).split(">")
            here = names.index(task)
            if here:
                r: Any = run.matrix(row)
                seeds = after.setdefault(names[here - 1], {})
                seeds.setdefault(int(str(row["seed"])), []).append(r[here][here])
        assert shown.counts[p][j] == sum(len(values) for values in after.get(previous, {}).values())
        if previous not in after or len(after) < 2:
            assert shown.effects[p][j] is None
            continue
        wanted = [
            np.mean(values) - np.mean([np.mean(seeds[seed]) for seeds in after.values()])
            for seed, values in after[previous].items()
        ]
        assert shown.effects[p][j].mean == pytest.approx(np.mean(wanted), abs=1e-9)


def test_the_quantiles_are_those_of_a_printed_table() -> None:
    assert [t_quantile(freedom) for freedom in (1, 2, 3, 4, 9)] == pytest.approx(
        [12.7062, 4.3027, 3.1824, 2.7764, 2.2622], abs=5e-5
    )
