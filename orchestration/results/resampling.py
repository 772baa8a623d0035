"""Settings on the same seeds and orders, and the bootstrap over those: what ranks are made of.

The percentile bootstrap resamples the units of the design (Efron & Tibshirani, An Introduction to the Bootstrap, ch.
13; seeds and drawn orders each by itself, as in Owen 2007, "The pigeonhole bootstrap"). Every setting gets the same
resampled units, so that what a seed or an order does to all of them alike falls out. With few seeds such intervals are
too narrow: of n seeds a resampled mean has (n - 1) / n of the variance that it should have. They are for ranks, for
which there is no t; a mean's own interval is that of `estimates`. Ranks move in whole steps, so that theirs hold what
they promise from five seeds on (simulated in `test_ranks.py`); three seeds agree on the wrong one of two all but equal
settings in up to one case of eight, and then no resample says otherwise.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Generic, NamedTuple, TypeVar

import numpy as np
from pydantic import JsonValue

from mcit_core.metrics import CATALOGUE
from orchestration.keep.tables import Row
from orchestration.results.estimates import CONFIDENCE, LEAST, LISTED, ROUND_OFF, Design, present
from orchestration.results.reading import finished
from orchestration.results.settings import Setting, candidates, rows_by_setting

#: resampled seeds (and orders) that an interval is made of
DRAWS = 2000
T = TypeVar("T")


class Found(NamedTuple, Generic[T]):
    """What was worked out, or None together with the reason why it could not be (empty where it could)."""

    value: T | None
    reason: str = ""


@dataclass(frozen=True)
class Grid:
    """`values` [settings, seeds, orders]: one metric of every setting under the same seeds and orders, on the stored
    scale; trials that share all three count with their mean. `drawn`: whether the orders are a draw."""

    settings: tuple[Setting, ...]
    seeds: tuple[JsonValue, ...]
    orders: tuple[JsonValue, ...]
    values: np.ndarray
    drawn: bool

    @property
    def by_seed(self) -> np.ndarray:
        """[settings, seeds]: means over the orders."""
        return np.asarray(self.values.mean(2))

    @property
    def means(self) -> np.ndarray:
        """[settings]: means over seeds and orders."""
        return np.asarray(self.values.mean((1, 2)))

    @property
    def too_few(self) -> str:
        """Why there is no interval over its units; empty where there is one."""
        if len(self.seeds) < LEAST:
            return f"an interval takes {LEAST} seeds that all settings have, and there are {len(self.seeds)}"
        if self.drawn and len(self.orders) < LEAST:
            return f"an interval takes {LEAST} drawn orders, and there are {len(self.orders)}"
        return ""


def better_sign(metric: str) -> int:
    """1 where a higher value of a column of trials.parquet is better, -1 where a lower one is. Raises ValueError where
    neither is."""
    entry = CATALOGUE.get(metric.removeprefix("validation/"))
    if entry is None or not entry.better:
        raise ValueError(f"{metric} does not say which of two settings is better")
    return 1 if entry.better == "higher" else -1


def shared_grid(trials: Sequence[Row], axes: Collection[str], metric: str, design: Design = LISTED) -> Grid:
    """The settings that compete on a column of trials.parquet (`candidates`: no references, none with fewer finished
    trials than another), on the seeds that all of them have under every order; without seeds where none is."""
    competing = {summary.setting for summary in candidates(trials, axes, design, (metric,))}
    rows = {
        setting: found for setting, found in rows_by_setting(finished(trials), axes).items() if setting in competing
    }
    cells: dict[tuple[Setting, JsonValue, JsonValue], list[float]] = {}
    for setting, found in rows.items():
        for row in found:
            cells.setdefault((setting, row["seed"], row["order"]), []).extend(present([row.get(metric)]))
    there = {cell for cell, values in cells.items() if values}
    orders = design.every or tuple(dict.fromkeys(order for _, _, order in cells))
    seeds = tuple(
        seed
        for seed in dict.fromkeys(seed for _, seed, _ in cells)
        if all((setting, seed, order) in there for setting in rows for order in orders)
    )
    values = [[[float(np.mean(cells[setting, seed, order])) for order in orders] for seed in seeds] for setting in rows]
    table = np.array(values, dtype=float).reshape(len(rows), len(seeds), len(orders))
    return Grid(tuple(rows), seeds, orders, table, design.orders == "random")


def resampled(grid: Grid, draws: int = DRAWS) -> tuple[np.ndarray, np.ndarray]:
    """How often each seed [draws, seeds] and each order [draws, orders] is taken, as shares of one. Orders are drawn
    anew only where they were drawn. The generator begins at 0 every time, so that a page says the same when it is made
    again."""
    rng = np.random.default_rng(0)
    seeds, orders = len(grid.seeds), len(grid.orders)
    of_seeds = rng.multinomial(seeds, np.full(seeds, 1 / seeds), size=draws) / seeds
    if not grid.drawn:
        return of_seeds, np.full((draws, orders), 1 / orders)
    return of_seeds, rng.multinomial(orders, np.full(orders, 1 / orders), size=draws) / orders


def percentiles(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The ends of the middle 95 % of values [draws, ...], each a value that was drawn."""
    tail = round((1 - CONFIDENCE) / 2, 12)  # or round-off takes the next value
    low, high = np.quantile(values, [tail, 1 - tail], axis=0, method="inverted_cdf")
    return np.asarray(low), np.asarray(high)


def without_round_off(values: np.ndarray) -> np.ndarray:
    """Values in which a difference that is the round-off of none is none, so that equals tie."""
    scale = ROUND_OFF * max(float(np.abs(values).max(initial=0.0)), np.finfo(float).tiny / ROUND_OFF)
    return np.asarray(np.round(values / scale) * scale)
