"""Which place a setting takes among those that compete, and how sure that is.

A reconstruction: the rank of the means with its percentile bootstrap interval over seeds, in the manner of Goldstein &
Spiegelhalter 1996 ("League tables and their limitations"), who do so by simulation from the posterior.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

from orchestration.keep.tables import Row
from orchestration.results.estimates import LISTED, Design
from orchestration.results.resampling import (
    DRAWS,
    Found,
    Grid,
    better_sign,
    percentiles,
    resampled,
    shared_grid,
    without_round_off,
)
from orchestration.results.settings import Setting


@dataclass(frozen=True)
class Rank:
    """`rank`: of the mean, 1 is the best, equals share their mean rank; `low` and `high`: the middle 95 % of the ranks
    under resampled seeds; `best`: the share of these in which it is the best, split among equals. `mean`: over the
    seeds that all settings have, on the stored scale."""

    setting: Setting
    mean: float
    rank: float
    low: float
    high: float
    best: float


@dataclass(frozen=True)
class Ranks:
    """The best first. `seeds`: how many all settings have; `drawn`: how many orders were drawn, 0 where they are
    fixed."""

    metric: str
    ranks: tuple[Rank, ...]
    seeds: int
    drawn: int


def ranks(
    trials: Sequence[Row], axes: Collection[str], metric: str, design: Design = LISTED, draws: int = DRAWS
) -> Found[Ranks]:
    """The ranks of the settings that compete on a column of trials.parquet; see `resampling` for which do, on which
    seeds, and what the intervals are worth. Listed orders are averaged within a seed; drawn ones are resampled as seeds
    are. None below two settings or three seeds (or three drawn orders). Raises ValueError for a metric of which neither
    more nor less is better."""
    sign = better_sign(metric)
    grid = shared_grid(trials, axes, metric, design)
    if len(grid.settings) < 2:
        return Found(None, f"a rank takes two settings that compete, and there are {len(grid.settings)}")
    if grid.too_few:
        return Found(None, grid.too_few)
    of_seeds, of_orders = resampled(grid, draws)
    means = np.einsum("kso,ds,do->dk", grid.values, of_seeds, of_orders, optimize=True)
    drawn = _ranked(sign * means)
    low, high = percentiles(drawn)
    first = drawn == drawn.min(1, keepdims=True)
    best = (first / first.sum(1, keepdims=True)).mean(0)
    return Found(Ranks(metric, _in_order(grid, sign, low, high, best), len(grid.seeds), _orders(grid)))


def _in_order(grid: Grid, sign: int, low: np.ndarray, high: np.ndarray, best: np.ndarray) -> tuple[Rank, ...]:
    place = _ranked(sign * grid.means[None])[0]
    columns = zip(grid.settings, *(part.tolist() for part in (grid.means, place, low, high, best)), strict=True)
    return tuple(sorted((Rank(*parts) for parts in columns), key=lambda found: found.rank))


def _orders(grid: Grid) -> int:
    return len(grid.orders) if grid.drawn else 0


def _ranked(values: np.ndarray) -> np.ndarray:
    """Ranks along the last axis [draws, settings], 1 for the highest, mean ranks for equals."""
    return np.asarray(stats.rankdata(-without_round_off(values), axis=-1))
