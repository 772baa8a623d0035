"""Accuracy against forgetting: the settings that no other beats in both, and how far a setting's place is known."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from orchestration.keep.tables import Row
from orchestration.results.estimates import CONFIDENCE, LEAST, LISTED, Design, present
from orchestration.results.resampling import Found
from orchestration.results.settings import Setting, SettingSummary, estimate_rows

#: left is better, and up is better
ACROSS, UP = "forgetting", "average_accuracy"
Point = tuple[float, float]
#: decimals that are no round-off
DIGITS = 10
#: corners of the polygon that stands for an ellipse
CORNERS = 72


@dataclass(frozen=True)
class Ellipse:
    """A 95 % confidence region of a mean of two values. `centre`: the mean; `polygon`: points on the region's edge, the
    first not repeated at the end; `n`: the seeds behind it. All on the scale of the pairs."""

    centre: Point
    polygon: tuple[Point, ...]
    n: int


def pareto_front(points: Iterable[Point]) -> list[Point]:
    """The points (x low is good, y high is good) that no other point beats, from left to right: a point stays where
    none is at least as good in both and better in one. Of equal points one is given; what round-off alone tells apart
    is equal."""
    front: list[Point] = []
    for point in sorted(points, key=lambda point: (_exact(point)[0], -_exact(point)[1])):
        if not front or _exact(point)[1] > _exact(front[-1])[1]:
            front.append(point)
    return front


def front_settings(summaries: Iterable[SettingSummary], x: str = ACROSS, y: str = UP) -> list[Setting]:
    """The settings on the front of the means of two metrics (x low is good, y high is good), from left to right, equals
    beside one another. References count only if they are given; a setting that lacks a mean does not."""
    places = [
        (summary.setting, _exact((across, up)))
        for summary in summaries
        if (across := summary.metric(x).mean) is not None and (up := summary.metric(y).mean) is not None
    ]
    front = pareto_front(place for _, place in places)
    return [setting for point in front for setting, place in places if place == point]


def _exact(point: Point) -> Point:
    """Without round-off: means of shares, or of per cents, are rarely nearer than that unless they are equal."""
    return round(point[0], DIGITS), round(point[1], DIGITS)


def mean_ellipse(pairs: Sequence[Point], corners: int = CORNERS) -> Found[Ellipse]:
    """Hotelling's T² region of the mean of n pairs that are drawn independently from a normal distribution:
    n (m - μ)ᵀ S⁻¹ (m - μ) <= 2 (n - 1) / (n - 2) F(0.95; 2, n - 2), S the sample covariance (Hotelling 1931; Johnson &
    Wichern, Applied Multivariate Statistical Analysis, 5.4). None below three pairs.

    At three pairs F is 199.5, so that the region is all but unbounded. Where the pairs lie on a line S has no inverse,
    and the region is the line's part that the formula tends to.
    """
    n = len(pairs)
    if n < LEAST:
        return Found(None, f"a region of two means takes {LEAST} seeds, and there are {n}")
    table = np.array(pairs, dtype=float)
    centre = table.mean(0)
    squares, directions = np.linalg.eigh(np.cov(table.T))
    radius = math.sqrt(2 * (n - 1) / (n - 2) * _f_quantile(CONFIDENCE, n - 2) / n)
    turns = 2 * math.pi * np.arange(corners) / corners
    circle = np.stack([np.cos(turns), np.sin(turns)])  # [2, corners]
    # squares are never below zero but for round-off
    edge = centre[:, None] + radius * (directions * np.sqrt(squares.clip(0))) @ circle
    return Found(Ellipse((float(centre[0]), float(centre[1])), tuple((float(a), float(b)) for a, b in edge.T), n))


def setting_ellipse(rows: Iterable[Row], design: Design = LISTED, x: str = ACROSS, y: str = UP) -> Found[Ellipse]:
    """The region of a setting's mean of two columns of trials.parquet, from the rows of its finished trials: a pair a
    seed, its means over the orders, of the seeds that have both under every order. None below three such seeds, and
    where orders were drawn, whose share of the error a region over seeds alone would lack."""
    if design.orders == "random":
        return Found(None, "orders were drawn: a region over seeds alone would leave out what they add")
    both = [row for row in rows if present([row.get(x)]) and present([row.get(y)])]
    across, up = (estimate_rows(both, name, design).values for name in (x, y))  # the same seeds in the same order
    return mean_ellipse(list(zip(across, up, strict=True)))


def _f_quantile(share: float, freedom: int) -> float:
    """Of the F distribution with 2 and `freedom` degrees of freedom, whose upper tail is (1 + 2 f / m)^(-m / 2)."""
    return freedom / 2 * ((1 - share) ** (-2 / freedom) - 1)
