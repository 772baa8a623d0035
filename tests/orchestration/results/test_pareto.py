"""The front and the regions of means: by hand, by simulation, and laws that hold whatever the numbers are."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings, strategies
from scipy import stats

from orchestration.keep.tables import Row
from orchestration.results.estimates import Design
from orchestration.results.pareto import front_settings, mean_ellipse, pareto_front, setting_ellipse
from orchestration.results.settings import settings_summary
from tests.orchestration.results.grids import AXIS, rows_of, setting

POINTS = strategies.lists(strategies.tuples(strategies.integers(0, 9), strategies.integers(0, 9)), max_size=12)


def test_front_by_hand() -> None:
    assert pareto_front([(3, 9), (1, 5), (2, 5), (2, 7), (4, 8), (1, 4)]) == [(1, 5), (2, 7), (3, 9)]
    assert pareto_front([]) == []
    # as forgetting 0.3 - 0.1 - 0.2 is beaten by nothing forgotten and more known
    assert pareto_front([(-2.8e-17, 0.5), (0, 0.6)]) == [(0, 0.6)]


@given(POINTS)
def test_whoever_is_not_on_the_front_is_beaten(points: list[tuple[int, int]]) -> None:
    front = pareto_front(points)
    for x, y in points:
        beaten = any(a <= x and b >= y and (a, b) != (x, y) for a, b in points)
        assert ((x, y) in front) is not beaten
    assert front == sorted(set(front))


def both(table: dict[tuple[int], tuple[list[float], list[float]]]) -> list[Row]:
    """Settings by size -> forgetting and average accuracy of each seed."""
    rows = rows_of({size: [[value] for value in up] for size, (_, up) in table.items()})
    return [{**row, "forgetting": table[(row[AXIS],)][0][int(str(row["seed"]))]} for row in rows]  # type: ignore[index]


def test_settings_on_the_front() -> None:
    rows = both({(20,): ([0.1], [0.5]), (40,): ([0.2], [0.4]), (60,): ([0.1], [0.5]), (80,): ([0.3], [0.6])})
    summaries = settings_summary(rows, [AXIS], metrics=["forgetting", "average_accuracy"])
    assert front_settings(summaries) == [setting(20), setting(60), setting(80)]
    lacking = settings_summary([{**row, "forgetting": None} for row in rows], [AXIS], metrics=["forgetting"])
    assert front_settings(lacking) == []


def test_ellipse_by_hand() -> None:
    """Variances 2/3 and 8/3, no covariance; F(0.95; 2, 2) = 19, so that T² / n is 2 · 3 / 2 · 19 / 4 = 14.25, and the
    half axes are the roots of 9.5 and 38."""
    found = mean_ellipse([(2, 5), (4, 5), (3, 3), (3, 7)], corners=4).value
    assert found is not None
    assert (found.centre, found.n) == ((3, 5), 4)
    edges = sorted(abs(a - 3) + abs(b - 5) for a, b in found.polygon)
    assert edges == pytest.approx([9.5**0.5] * 2 + [38**0.5] * 2)
    full = mean_ellipse([(2, 5), (4, 5), (3, 3), (3, 7)]).value
    assert full is not None
    assert len(set(full.polygon)) == 72
    for a, b in full.polygon:
        assert (a - 3) ** 2 / 9.5 + (b - 5) ** 2 / 38 == pytest.approx(1)


def test_ellipse_of_few_or_on_a_line() -> None:
    assert mean_ellipse([(1, 2), (2, 3)]) == (None, "a region of two means takes 3 seeds, and there are 2")
    flat = mean_ellipse([(0, 1), (0, 2), (0, 3), (0, 4)]).value
    assert flat is not None
    assert [a for a, _ in flat.polygon] == pytest.approx([0] * 72)
    point = mean_ellipse([(0.5, 0.5)] * 3).value
    assert point is not None
    assert set(point.polygon) == {(0.5, 0.5)}


NUMBERS = strategies.integers(-50, 50).map(lambda value: value / 10)


@settings(deadline=None)
@given(strategies.lists(strategies.tuples(NUMBERS, NUMBERS), min_size=3, max_size=8), NUMBERS)
def test_every_corner_has_the_same_t_squared(pairs: list[tuple[float, float]], slant: float) -> None:
    """Also after the pairs are slanted: the region moves as they do."""
    table = np.array(pairs)
    if np.linalg.det(np.cov(table.T)) < 1e-3:
        return
    n = len(pairs)
    limit = 2 * (n - 1) / (n - 2) * stats.f.ppf(0.95, 2, n - 2)
    turned = table @ np.array([[1.0, slant], [0.0, 1.0]])
    found = mean_ellipse([(float(a), float(b)) for a, b in turned]).value
    assert found is not None
    away = np.array(found.polygon) - turned.mean(0)
    squares = n * np.einsum("ia,ab,ib->i", away, np.linalg.inv(np.cov(turned.T)), away)
    assert squares == pytest.approx(limit, rel=1e-4)


def test_it_holds_the_true_mean_in_95_per_cent() -> None:
    rng = np.random.default_rng(0)
    held, draws = 0, 2000
    for _ in range(draws):
        pairs = rng.normal(size=(5, 2)) @ np.array([[1.0, 0.7], [0.0, 0.5]])
        found = mean_ellipse([(float(a), float(b)) for a, b in pairs], corners=4).value
        assert found is not None
        # two neighbouring corners span the ellipse: the mean is inside where its coordinates in them are
        first, second = (np.array(corner) - found.centre for corner in found.polygon[:2])
        inside = np.linalg.solve(np.stack([first, second]).T, -np.array(found.centre))
        held += float(inside @ inside) <= 1
    assert abs(held / draws - 0.95) <= 3 * (0.95 * 0.05 / draws) ** 0.5


def test_a_pair_is_of_a_seed_that_has_both_under_every_order() -> None:
    rows = [
        {"method": "m", "seed": seed, "order": f"o{order}", "forgetting": seed + order, "average_accuracy": seed**2}
        for seed in range(6)
        for order in range(2)
    ]
    rows[0]["forgetting"] = None
    rows[-1]["average_accuracy"] = None
    found = setting_ellipse(rows).value
    wanted = mean_ellipse([(seed + 0.5, seed**2) for seed in range(1, 5)]).value
    assert found is not None
    assert wanted is not None
    assert found.n == 4
    assert found.centre == pytest.approx((3, 7.5))
    assert np.array(found.polygon) == pytest.approx(np.array(wanted.polygon))
    assert setting_ellipse(rows, Design("random")).reason.startswith("orders were drawn")
    assert setting_ellipse([]).value is None
