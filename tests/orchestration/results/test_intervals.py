"""Intervals over crossed seeds and orders hold what they promise: worked by hand, and by simulation."""

from __future__ import annotations

import math
from typing import Literal

import numpy as np
import pytest
from scipy import stats

from mcit_core.metrics import headline_names
from orchestration.keep.tables import Row
from orchestration.results import paired_interval
from orchestration.results.comparisons import compare
from orchestration.results.estimates import Design, Unit, estimate_units, more_seeds

DRAWS = 4000
Kind = Literal["fixed", "random"]


def grid(table: list[list[float]]) -> dict[Unit, float]:
    return {(seed, f"o{order}"): value for seed, row in enumerate(table) for order, value in enumerate(row)}


def test_listed_orders_are_averaged_within_a_seed() -> None:
    found = paired_interval(grid([[1.0, 3.0], [2.0, 6.0], [5.0, 7.0]]), "fixed")
    # the seeds' means are 2, 4, 6: mean 4, standard deviation 2, t(0.975, 2) = 4.302653
    assert found.mean == 4
    assert found.degrees_of_freedom == 2
    assert (found.low, found.high) == pytest.approx((4 - 4.302653 * 2 / math.sqrt(3), 4 + 4.302653 * 2 / math.sqrt(3)))


def test_a_seed_that_lacks_an_order_is_left_out() -> None:
    values = grid([[1.0, 3.0], [2.0, 6.0], [5.0, 7.0], [9.0, 9.0]])
    del values[3, "o1"]
    assert paired_interval(values, "fixed") == paired_interval(grid([[1.0, 3.0], [2.0, 6.0], [5.0, 7.0]]), "fixed")
    values[2, "o0"] = math.nan
    assert paired_interval(values, "fixed")[1:3] == (None, None)  # two seeds are left


def test_drawn_orders_by_hand() -> None:
    """Row means 2, 4, 6, column means 3, 4, 5, no residual: mean squares 3 * 4 = 12, 3 * 1 = 3 and 0; the variance of
    the mean is (12 + 3) / 9, and Satterthwaite's degrees of freedom 15² / (12² / 2 + 3² / 2) = 225 / 76.5."""
    found = paired_interval(grid([[1.0, 2.0, 3.0], [3.0, 4.0, 5.0], [5.0, 6.0, 7.0]]), "random")
    freedom = 225 / 76.5
    half = float(stats.t.ppf(0.975, freedom)) * math.sqrt(15 / 9)
    assert found == pytest.approx((4, 4 - half, 4 + half, freedom))


def test_the_variance_is_never_below_the_residuals() -> None:
    """A Latin square has equal row and column means: all that is left is residual."""
    found = paired_interval(grid([[1.0, 2.0, 3.0], [2.0, 3.0, 1.0], [3.0, 1.0, 2.0]]), "random")
    assert found.degrees_of_freedom == 4
    assert found.high is not None
    assert found.high - 2 == pytest.approx(float(stats.t.ppf(0.975, 4)) * math.sqrt(6 / 4 / 9))


@pytest.mark.parametrize("kind", ["fixed", "random"])
def test_below_three_units_there_is_no_interval(kind: Kind) -> None:
    assert paired_interval({}, kind) == (None, None, None, 0)
    assert paired_interval(grid([[1.0] * 4, [2.0] * 4]), kind)[:3] == (1.5, None, None)
    three = paired_interval(grid([[1.0, 1.5], [2.0, 3.0], [4.0, 4.0]]), kind)
    assert (three.low is None) == (kind == "random")  # two orders
    assert estimate_units(grid([[1.0, 3.0], [3.0, 5.0]]), Design(kind)).values == (2, 4)


def test_other_kinds_are_refused() -> None:
    with pytest.raises(ValueError, match="fixed or random, not 'drawn'"):
        paired_interval({}, "drawn")  # type: ignore[arg-type]


def drawn(
    rng: np.random.Generator, seeds: int, orders: int, shares: tuple[float, float, float], kind: Kind
) -> np.ndarray:
    """Differences of true mean 0 [seeds, orders]; where orders are listed, what they do sums to zero."""
    of_orders = rng.normal(size=orders)
    if kind == "fixed":
        of_orders -= of_orders.mean()
    parts = (rng.normal(size=(seeds, 1)), of_orders, rng.normal(size=(seeds, orders)))
    return np.asarray(sum(math.sqrt(share) * part for share, part in zip(shares, parts, strict=True)))


SHARES = [(0, 0, 1), (0.5, 0, 0.5), (0.8, 0, 0.2), (0.3, 0.3, 0.4), (0.4, 0.4, 0.2)]


@pytest.mark.parametrize("shares", SHARES)
@pytest.mark.parametrize(
    ("kind", "sizes", "least"),
    [("fixed", [(3, 2), (5, 2), (5, 4), (10, 2)], 0.93), ("random", [(3, 3), (10, 3), (5, 4), (6, 6)], 0.92)],
)
def test_95_per_cent_intervals_hold_the_truth(
    kind: Kind, sizes: list[tuple[int, int]], least: float, shares: tuple[float, float, float]
) -> None:
    for seeds, orders in sizes:
        rng = np.random.default_rng(0)
        held = 0
        for _ in range(DRAWS):
            found = paired_interval(grid(drawn(rng, seeds, orders, shares, kind).tolist()), kind)
            assert found.low is not None
            assert found.high is not None
            held += found.low <= 0 <= found.high
        assert held / DRAWS >= least, (seeds, orders, held / DRAWS)


@pytest.mark.parametrize(
    ("settings", "kind", "sweeps", "orders"), [(4, "fixed", 2000, 2), (16, "fixed", 2000, 2), (4, "random", 1000, 4)]
)
def test_a_sweep_without_differences_is_told_so(settings: int, kind: Kind, sweeps: int, orders: int) -> None:
    """Sweeps in which no setting differs from sequential or another, though each has effects of its own with seed and
    order: a verdict, on a setting or along the axis, is given in at most 5 % of them, and two standard errors more."""
    seeds = 5
    design = Design(kind, tuple(str(order) for order in range(orders)))
    rng = np.random.default_rng(1)
    metric = headline_names()[0]
    told = 0
    for _ in range(sweeps):
        common = drawn(rng, seeds, orders, (0.4, 0.4, 0.2), kind)
        own = [common + drawn(rng, seeds, orders, (0.5, 0.2, 0.3), kind) for _ in range(settings + 1)]
        rows: list[Row] = [
            {
                "method": "sequential" if i == settings else "fwd_prompt",
                "pool.size": None if i == settings else i,
                "seed": seed,
                "order": str(order),
                "status": "FINISHED",
                metric: float(own[i][seed, order]),
            }
            for i in range(settings + 1)
            for seed in range(seeds)
            for order in range(orders)
        ]
        compared = compare(rows, ["pool.size"], design, [metric])
        assert (len(compared.with_sequential), len(compared.contrasts)) == (settings, 1)
        every = [found.p_holm for found in (*compared.with_sequential, *compared.contrasts)]
        told += any(p is not None and p <= 0.05 for p in every)
    assert told / sweeps <= 0.05 + 2 * math.sqrt(0.05 * 0.95 / sweeps)
    assert told  # the test can fail


def test_how_many_seeds_more_would_tell() -> None:
    more = more_seeds(2.0, 3.0, 5)
    for total, wide_enough in ((5 + more, False), (4 + more, True)):
        half = float(stats.t.ppf(0.975, total - 1)) * 3.0 / math.sqrt(total)
        assert (half >= 2.0) == wide_enough
    assert more_seeds(100.0, 1.0, 5) == 0
    assert more_seeds(100.0, 1.0, 1) == 2  # three give an interval at all
