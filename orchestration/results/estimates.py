"""Means, intervals and p-values of plain numbers. A missing value (None or NaN) is left out, and n says so."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

CONFIDENCE = 0.95


@dataclass(frozen=True)
class Estimate:
    """Mean of n values, their standard deviation, and half the width of the 95 % t-interval (both need n > 1)."""

    mean: float | None
    spread: float | None
    half_width: float | None
    n: int


@dataclass(frozen=True)
class Difference:
    """Mean of n paired differences, its 95 % t-interval and the two-sided p-value of the paired t-test."""

    mean: float | None
    half_width: float | None
    n: int
    p: float | None

    @property
    def interval(self) -> tuple[float, float] | None:
        if self.mean is None or self.half_width is None:
            return None
        return self.mean - self.half_width, self.mean + self.half_width


def present(values: Iterable[object]) -> list[float]:
    """The values that are there: neither None nor NaN nor infinite."""
    return [float(value) for value in values if isinstance(value, int | float) and math.isfinite(value)]


def estimate(values: Iterable[object]) -> Estimate:
    numbers = present(values)
    if not numbers:
        return Estimate(None, None, None, 0)
    mean = float(np.mean(numbers))
    if len(numbers) == 1:
        return Estimate(mean, None, None, 1)
    spread = float(np.std(numbers, ddof=1))
    return Estimate(mean, spread, _half_width(spread, len(numbers)), len(numbers))


def _half_width(spread: float, n: int) -> float:
    return float(stats.t.ppf((1 + CONFIDENCE) / 2, n - 1)) * spread / math.sqrt(n)


def difference(values: Iterable[float]) -> Difference:
    """Mean, interval and p-value of differences. Without any variation p is 1 (all zero) or undefined."""
    found = estimate(values)
    if found.mean is None or found.spread is None:
        return Difference(found.mean, None, found.n, None)
    error = found.spread / math.sqrt(found.n)
    if error == 0:
        return Difference(found.mean, 0.0, found.n, 1.0 if found.mean == 0 else None)
    p = 2 * float(stats.t.sf(abs(found.mean) / error, found.n - 1))
    return Difference(found.mean, found.half_width, found.n, p)


def holm(p_values: Sequence[float | None]) -> list[float | None]:
    """Holm's step-down correction; undefined p-values stay undefined and do not count."""
    known = sorted((p, index) for index, p in enumerate(p_values) if p is not None)
    corrected: list[float | None] = [None] * len(p_values)
    largest = 0.0
    for position, (p, index) in enumerate(known):
        largest = max(largest, min(1.0, (len(known) - position) * p))
        corrected[index] = largest
    return corrected
