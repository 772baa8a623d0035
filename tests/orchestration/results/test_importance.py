"""Importance of axes: by hand, and laws that hold whatever the numbers are."""

from __future__ import annotations

import itertools
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings, strategies
from pydantic import JsonValue

from orchestration.keep.tables import Row
from orchestration.results.estimates import Design
from orchestration.results.importance import Axes, Importance, importance
from orchestration.search.optuna_search import seen_distribution
from tests.orchestration.results.grids import AXIS, OTHER, rows_of
from tests.support.places import ROOT

BOTH = (AXIS, OTHER)
AXES: dict[str, list[JsonValue] | None] = {AXIS: [20, 40], OTHER: ["x", "y", "z"]}


def told(rows: list[Row], axes: Axes = AXES, design: Design | None = None) -> Importance:
    found = importance(rows, axes, design or Design())
    assert found.value is not None, found.reason
    return found.value


def additive(seeds: tuple[float, ...] = (0.0, 0.0, 0.0)) -> list[Row]:
    table = {
        (size, kind): [[0.5 + a + b + seed] for seed in seeds]
        for (size, a), (kind, b) in itertools.product([(20, -0.2), (40, 0.2)], [("x", -0.1), ("y", 0.1)])
    }
    return rows_of(table, axes=BOTH)


def test_shares_of_variance_by_hand() -> None:
    """Effects of ± 0.2 and ± 0.1: squares 0.04 and 0.01, shares 0.8 and 0.2."""
    found = told(additive())
    assert [one.axis for one in found.axes] == [AXIS, OTHER]
    assert [one.variance for one in found.axes] == pytest.approx([0.8, 0.2])
    # all variance lies between four settings, of which two values take one degree of freedom of three
    assert [one.chance for one in found.axes] == pytest.approx([1 / 3, 1 / 3])
    assert [end for one in found.axes for end in (one.low, one.high)] == pytest.approx([0.8, 0.8, 0.2, 0.2])
    assert (found.seed_variance, found.settings, found.seeds, found.top) == (pytest.approx(0), 4, 3, 2)
    # the two best have 40 both, and x and y once each, as all settings do
    assert [one.best for one in found.axes] == pytest.approx([1, 0])
    # seeds of ± 0.3 and 0 add squares of 0.06
    shifted = told(additive((-0.3, 0.0, 0.3)))
    assert [one.variance for one in shifted.axes] == pytest.approx([0.04 / 0.11, 0.01 / 0.11])
    assert shifted.seed_variance == pytest.approx(0.06 / 0.11)
    assert shifted.axes[0].chance == pytest.approx(0.05 / 0.11 / 3)
    # without a seed at an end 0.0225 lies between the other two, without the middle one 0.09: the shares left are
    # 0.04 / 0.0725 twice and 0.04 / 0.14, pseudo-values -0.01254 twice and 0.51948, their mean 0.16480 and its error
    # 0.17734, times t(0.975, 2) = 4.302653
    assert (shifted.axes[0].low, shifted.axes[0].high) == pytest.approx((0, 0.16480 + 4.302653 * 0.17734), abs=5e-5)


def test_ped_anova_by_hand() -> None:
    """The three best of six settings are (b, x), (b, y), (a, x). A name's kernel puts 1 on itself and 1 / kernels
    everywhere, a flat one counts once more; densities of the best against those of all, 1/2 and 1/3 each:

    a and b: kernels [.8 .2], [.2 .8], [.5 .5] by 1, 2, 1 give .425, .575; 1/2 (.15² + .15²) = .0225
    x, y and z: kernels [4 1 1]/6, [1 4 1]/6, [2 2 2]/6 by 2, 1, 1 give 11, 8, 5 of 24; 1/3 (.375² + .375²) = .09375
    """
    values = {("a", "x"): 0.6, ("a", "y"): 0.3, ("a", "z"): 0.1, ("b", "x"): 0.8, ("b", "y"): 0.7, ("b", "z"): 0.2}
    rows = rows_of({key: [[value]] * 3 for key, value in values.items()}, axes=BOTH)
    found = told(rows)
    best = {one.axis: one.best for one in found.axes}
    assert found.top == 3
    assert best == pytest.approx({AXIS: 0.0225 / 0.11625, OTHER: 0.09375 / 0.11625}, abs=1e-9)
    # lower is better: the three best are now a/z, b/z and a/y, which have a and z as the others had b and x
    turned = importance([{**row, "forgetting": row["average_accuracy"]} for row in rows], AXES, metric="forgetting")
    assert turned.value is not None
    assert {one.axis: one.best for one in turned.value.axes} == pytest.approx(best)


def test_the_best_are_those_that_the_metric_says() -> None:
    """Of twelve settings the five best are all of size a and one of b, the five worst all of kind w and half of z."""
    worst_last = ["ax", "ay", "az", "bx", "aw", "by", "cx", "cy", "bz", "cz", "bw", "cw"]
    rows = rows_of({tuple(name): [[1 - 0.05 * place]] * 3 for place, name in enumerate(worst_last)}, axes=BOTH)
    turned = [{**row, "forgetting": row["average_accuracy"]} for row in rows]
    best = told(rows)
    worst = importance(turned, AXES, metric="forgetting").value
    assert worst is not None
    assert best.top == worst.top == 5
    shares = [{one.axis: one.best for one in found.axes} for found in (best, worst)]
    assert shares[0][AXIS] > 0.8  # type: ignore[operator]
    assert shares[1][AXIS] < 0.6  # type: ignore[operator]


def test_validation_rows_decide_where_there_are_any() -> None:
    rows = [{**row, "validation/average_accuracy": -row["average_accuracy"]} for row in additive()]  # type: ignore[operator]
    assert told(additive()).metric == "average_accuracy"
    assert told(rows).metric == "validation/average_accuracy"


def test_too_little_is_refused() -> None:
    rows = additive()
    assert importance(rows, {AXIS: [20, 40]}).reason == "it takes 4 settings that compete, and there are 2"
    one = rows_of({(size,): [[size / 100]] * 3 for size in range(5)})
    assert importance(one, {AXIS: None}).reason == f"it takes two axes that vary, and there is {AXIS}"
    alike = [{**row, "average_accuracy": 0.1 + 0.2 if row[AXIS] == 20 else 0.3} for row in rows]
    assert importance(alike, AXES).reason == "all settings have the same value"
    assert importance([], AXES).value is None
    with pytest.raises(ValueError, match="does not say which of two settings is better"):
        importance(rows, AXES, metric="memory_bytes")
    references = [{**row, "method": "sequential"} for row in rows]
    assert importance(references, AXES).value is None


def test_one_seed_has_no_interval_and_equals_have_no_best() -> None:
    found = told([row for row in additive() if row["seed"] == 0])
    assert {(one.low, one.high) for one in found.axes} == {(None, None)}
    assert found.no_interval == "an interval takes 3 seeds that all settings have, and there are 1"
    # 40 is better, but the four best of eight settings are as good as the worst
    table = {(size, kind): [[0.5 + 0.1 * (size == 40 and kind == "a")]] * 3 for size in (20, 40) for kind in "abcd"}
    equal = told(rows_of(table, axes=BOTH))
    assert {one.best for one in equal.axes} == {None}
    assert equal.no_best == "the 4 best settings cannot be told from the rest: they are equal"
    # the two best are (a, x) and (b, y): each value once
    crossed = {("a", "x"): 0.9, ("a", "y"): 0.1, ("b", "x"): 0.1, ("b", "y"): 0.9}
    found = told(rows_of({key: [[value]] * 3 for key, value in crossed.items()}, axes=BOTH))
    assert found.no_best == "the 2 best settings have every value as often as all settings do"
    assert [one.variance for one in found.axes] == pytest.approx([0, 0])


def test_an_axis_that_does_not_apply_is_judged_where_it_does() -> None:
    """`none` knows no kind; over the four settings that do, kinds differ by ± 0.1 and sizes not at all."""
    table: dict[tuple[JsonValue, ...], list[list[float]]] = {
        (size, kind): [[value]] * 3 for size in (20, 40) for kind, value in (("x", 0.4), ("y", 0.6), (None, 0.9))
    }
    rows = rows_of(table, axes=BOTH)
    found = {one.axis: one for one in told(rows).axes}
    assert (found[OTHER].settings, found[OTHER].values, found[AXIS].settings) == (4, 2, 6)
    assert found[OTHER].variance == pytest.approx(1)
    declared = {one.axis: one for one in told(rows, {AXIS: [20, 40], OTHER: ["x", "y", None]}).axes}
    assert (declared[OTHER].settings, declared[OTHER].values) == (6, 3)
    assert found[OTHER].best is not None


def test_methods_are_an_axis_where_they_are_compared() -> None:
    rows = [{**row, "method": f"method_{row[OTHER]}"} for row in additive()]
    found = told(rows, {AXIS: None, "method": ["method_x", "method_y"]})
    assert {one.axis: one.variance for one in found.axes} == pytest.approx({AXIS: 0.8, "method": 0.2})


def test_orders_are_no_axis_and_are_resampled_where_they_were_drawn() -> None:
    table = {
        (size, kind): [[0.5 + 0.3 * (size == 40) * (order == 0) + 0.1 * (kind == "y") for order in range(3)]] * 3
        for size in (20, 40)
        for kind in "xy"
    }
    rows = rows_of(table, axes=BOTH)
    axes: Axes = {**AXES, "order": None}
    listed, drawn = (told(rows, axes, Design(kind)).axes for kind in ("fixed", "random"))
    assert [one.variance for one in listed] == [one.variance for one in drawn] == pytest.approx([0.5, 0.5])
    assert (listed[0].low, listed[0].high) == pytest.approx((0.5, 0.5))
    low, high = drawn[0].low, drawn[0].high
    assert low is not None
    assert high is not None
    assert high - low > 0.3


def test_values_are_numbers_by_size_or_names() -> None:
    def kind(*values: JsonValue) -> str:
        return repr(seen_distribution(values))

    assert kind(20, 40, 80) == "IntDistribution(high=80, log=False, low=20, step=1)"
    assert kind(1, 100) == "IntDistribution(high=100, log=True, low=1, step=1)"
    assert kind(0, 100).startswith("IntDistribution(high=100, log=False")
    assert kind(1e-4, 1e-2, 1).startswith("FloatDistribution(high=1.0, log=True")
    assert kind(0.5, 1).startswith("FloatDistribution(high=1.0, log=False")
    assert kind(True, False) == "CategoricalDistribution(choices=(True, False))"
    assert kind("a", 1, None, 1) == "CategoricalDistribution(choices=('a', 1, None))"


GRID = strategies.lists(
    strategies.lists(strategies.integers(0, 20).map(lambda value: value / 20), min_size=3, max_size=3),
    min_size=6,
    max_size=6,
)


@settings(deadline=None, max_examples=40)
@given(GRID)
def test_laws(values: list[list[float]]) -> None:
    def of(table: np.ndarray) -> Importance | None:
        names = itertools.product((20, 40), "xyz")
        cells = {key: [[value] for value in row] for key, row in zip(names, table.tolist(), strict=True)}
        return importance(rows_of(cells, axes=BOTH), AXES).value

    table = np.array(values)
    found = of(table)
    if found is None:
        assert np.ptp(table) == 0
        return
    # in a full grid axes and seeds are orthogonal
    assert sum(one.variance for one in found.axes) + found.seed_variance <= 1 + 1e-9
    for one in found.axes:
        assert one.low is not None
        assert one.high is not None
        assert 0 <= one.low <= one.high <= 1 + 1e-9
    best = [one.best for one in found.axes if one.best is not None]
    assert not best or sum(best) == pytest.approx(1)
    # neither scale nor origin matters
    other = of(100 * table + 7)
    assert other is not None
    shares = [{one.axis: one.variance for one in every.axes} for every in (found, other)]
    assert shares[0] == pytest.approx(shares[1], abs=1e-9)


@settings(deadline=None, max_examples=5)
@given(strategies.permutations([0.1, 0.15, 0.4, 0.8]), strategies.integers(1, 3))
def test_chance_is_the_mean_over_all_ways_to_deal_the_values(values: list[float], first: int) -> None:
    """Two values, of which `first` settings have the first, dealt to four settings in all 24 ways."""
    sizes = [20] * first + [40] * (4 - first)
    shares, chances = [], set()
    for dealt in itertools.permutations(sizes):
        rows = rows_of(
            {
                (size, name): [[value - 0.01], [value], [value + 0.01]]
                for size, name, value in zip(dealt, "abcd", values, strict=True)
            },
            axes=BOTH,
        )
        found = {one.axis: one for one in told(rows).axes}[AXIS]
        shares.append(found.variance)
        chances.add(round(found.chance, 12))
    assert len(chances) == 1
    assert np.mean(shares) == pytest.approx(chances.pop())


@pytest.mark.parametrize(("seeds", "size", "kind"), [(3, 0.1, 0.02), (5, 0.03, 0.0), (5, 0.05, 0.05)])
def test_intervals_hold_the_share_that_many_seeds_would_give(seeds: int, size: float, kind: float) -> None:
    """A noise of 0.03 of every trial's own, and one of 0.05 that a seed does to all."""
    rng = np.random.default_rng(1)
    names = [*itertools.product("ab", "xyz")]
    parts = {AXIS: [size * (a == "b") for a, _ in names], OTHER: [kind * "xyz".index(b) for _, b in names]}
    total = sum(float(np.var(part)) for part in parts.values()) + 0.05**2 + 0.03**2
    held, sweeps = dict.fromkeys(parts, 0), 150
    for _ in range(sweeps):
        table = (
            np.sum([*parts.values()], 0)[:, None] + 0.05 * rng.normal(size=seeds) + 0.03 * rng.normal(size=(6, seeds))
        )
        cells = {name: [[value] for value in row] for name, row in zip(names, table.tolist(), strict=True)}
        for one in told(rows_of(cells, axes=BOTH)).axes:
            assert one.low is not None
            assert one.high is not None
            held[one.axis] += one.low <= float(np.var(parts[one.axis])) / total <= one.high
    assert all(count / sweeps >= 0.86 for count in held.values()), held


def test_optuna_is_loaded_when_it_is_asked_for() -> None:
    code = "import sys, orchestration.results.importance; assert 'optuna' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)


def test_optuna_is_as_loud_as_before() -> None:
    import optuna

    before = optuna.logging.get_verbosity()
    told(additive())
    assert optuna.logging.get_verbosity() == before
