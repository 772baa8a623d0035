"""Means, intervals and p-values over seeds and orders. A missing value (None or NaN) is left out, and n says so.

Seeds are the units that repeat. Orders that were listed (explicit, reverse, latin_square, all) are a fixed factor: a
seed counts with its mean over all of them, and a seed that lacks one is left out. Orders that were drawn are a second
random factor, crossed with the seeds: the variance of the mean is that of the two-way layout without replication, with
Satterthwaite's degrees of freedom (Satterthwaite 1946; Searle, Casella & McCulloch, Variance Components, ch. 4).
Below three units of a random factor there is no interval and no p-value.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
from pydantic import JsonValue
from scipy import special

CONFIDENCE = 0.95
#: fewer units allow no interval
LEAST = 3
Unit = tuple[JsonValue, JsonValue]  # seed and order
#: what orders are: a list of which every one counts, or a draw from all that there are
Orders = Literal["fixed", "random"]
#: a spread so small beside the mean is the round-off of none
ROUND_OFF = 1e-9


@dataclass(frozen=True)
class Design:
    """What a sweep's orders are, and which they are; none named stands for those that are found."""

    orders: Orders = "fixed"
    every: tuple[JsonValue, ...] = ()


#: the orders that are found, each of which counts
LISTED = Design()


class PairedInterval(NamedTuple):
    """A mean and its 95 % interval, None where undefined."""

    mean: float | None
    low: float | None
    high: float | None
    degrees_of_freedom: float


@dataclass(frozen=True)
class Estimate:
    """A mean over seeds, of values or of differences paired over seed and order; what it cannot know is None.

    `error`: the standard error of the mean, None below three units, with its degrees of freedom; `spread`: the standard
    deviation of `values`, the seeds' means; `drawn`: how many orders were drawn, 0 where orders are fixed.
    """

    mean: float | None = None
    error: float | None = None
    freedom: float = 0.0
    spread: float | None = None
    values: tuple[float, ...] = ()
    drawn: int = 0

    @property
    def n(self) -> int:
        return len(self.values)

    @property
    def half_width(self) -> float | None:
        """Half the width of the 95 % interval of the mean."""
        return None if self.error is None else _quantile((1 + CONFIDENCE) / 2, self.freedom) * self.error

    @property
    def interval(self) -> tuple[float, float] | None:
        half = self.half_width
        return None if self.mean is None or half is None else (self.mean - half, self.mean + half)

    @property
    def leaves_zero_out(self) -> bool:
        """Whether the interval is on one side of zero."""
        return self.interval is not None and not self.interval[0] <= 0 <= self.interval[1]

    @property
    def p(self) -> float | None:
        """Two-sided, of the t that belongs to the interval. Without any variation it is 1 (all zero) or undefined."""
        if self.mean is None or self.error is None:
            return None
        if self.error:
            return 2 * float(special.stdtr(self.freedom, -abs(self.mean) / self.error))
        return None if self.mean else 1.0


def _quantile(share: float, freedom: float) -> float:
    return float(special.stdtrit(freedom, share))


def present(values: Iterable[object]) -> list[float]:
    """The values that are there: neither None nor NaN nor infinite."""
    return [float(value) for value in values if isinstance(value, int | float) and math.isfinite(value)]


def estimate_units(values: Mapping[Unit, object], design: Design = LISTED) -> Estimate:
    """Of (seed, order) -> value."""
    orders = design.orders
    found = {unit: value for unit, value in values.items() if present([value])}
    every = design.every or tuple(dict.fromkeys(order for _, order in found))
    seeds = [seed for seed in dict.fromkeys(seed for seed, _ in found) if all((seed, o) in found for o in every)]
    if not seeds:
        return Estimate()
    table = np.array([present(found[seed, order] for order in every) for seed in seeds])  # [seeds, orders]
    of_seeds = table.mean(1)
    mean, n = float(of_seeds.mean()), len(seeds)
    spread = float(of_seeds.std(ddof=1)) if n > 1 else None
    drawn = len(every) if orders == "random" else 0
    parts = (spread, tuple(of_seeds.tolist()), drawn)
    if spread is None or n < LEAST or 0 < drawn < LEAST:
        return Estimate(mean, None, n - 1.0, *parts)
    error, freedom = (spread / math.sqrt(n), n - 1.0) if orders == "fixed" else _crossed(table)
    error = 0.0 if error <= ROUND_OFF * abs(mean) else error
    return Estimate(mean, error, freedom, *parts)


def _crossed(table: np.ndarray) -> tuple[float, float]:
    """The standard error of the mean of a table [seeds, orders], both random, and its degrees of freedom. The variance
    is never below the residual's, which it is where neither factor has an effect of its own, and the degrees of freedom
    never below those of the factor with fewer levels (without that bound widths are erratic in small tables)."""
    s, o = table.shape
    rest = table - table.mean(1, keepdims=True) - table.mean(0) + table.mean()
    freedom = np.array([s - 1, o - 1, (s - 1) * (o - 1)])
    squares = np.array(
        [o * table.mean(1).var(ddof=1), s * table.mean(0).var(ddof=1), (rest**2).sum() / ((s - 1) * (o - 1))]
    )
    together = squares[0] + squares[1] - squares[2]
    if together <= squares[2]:
        return math.sqrt(squares[2] / (s * o)), float(freedom[2])
    satterthwaite = float(together**2 / (squares**2 / freedom).sum())
    return math.sqrt(together / (s * o)), max(satterthwaite, min(s, o) - 1.0)


def paired_interval(values: Mapping[Unit, float], orders: Orders) -> PairedInterval:
    """The mean of `values` (seed, order) -> number, most often a difference of two settings, and its 95 % interval.

    low and high are None below three seeds, and for `random` below three orders; mean too where no seed has every
    order. Raises ValueError for another word than fixed or random.
    """
    if orders not in ("fixed", "random"):
        raise ValueError(f"orders are fixed or random, not {orders!r}")
    found = estimate_units(values, Design(orders))
    low, high = found.interval or (None, None)
    return PairedInterval(found.mean, low, high, found.freedom)


def estimate(values: Iterable[object]) -> Estimate:
    """Of values that each are a unit."""
    return estimate_units({(unit, None): value for unit, value in enumerate(values)})


def more_seeds(points: float, spread: float, n: int) -> int:
    """How many seeds more, on n, would make half the interval narrower than `points` (above 0) at this spread between
    seeds."""
    wanted = LEAST
    while _quantile((1 + CONFIDENCE) / 2, wanted - 1) * spread / math.sqrt(wanted) >= points:
        wanted += max(1, wanted // 20)
    return max(0, wanted - n)


def holm(p_values: Sequence[float | None]) -> list[float | None]:
    """Holm's step-down correction; undefined p-values stay undefined and do not count."""
    known = sorted((p, index) for index, p in enumerate(p_values) if p is not None)
    corrected: list[float | None] = [None] * len(p_values)
    largest = 0.0
    for position, (p, index) in enumerate(known):
        largest = max(largest, min(1.0, (len(known) - position) * p))
        corrected[index] = largest
    return corrected
