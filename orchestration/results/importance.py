"""How much each swept axis matters to a metric: two answers to two questions.

*Share of variance*: of all the variance between settings x seeds, the part that lies between the values of one axis
(one-way eta squared, Fisher 1925; Cohen 1988). It is about everything that was tried. Its intervals are the jackknife's
over seeds: simulated (`test_importance.py`), these hold the share that many seeds would give in 88 to 100 % of cases,
a percentile bootstrap's in 0 to 90 %.

*PED-ANOVA* (Watanabe, Bansal & Hutter, IJCAI 2023, arXiv 2304.10255; conditional axes as in arXiv 2601.20800), by
Optuna's evaluator: how far an axis' values among the best settings are from its values among all of them, as shares
that sum to one. It is about what the best have in common, whatever the seeds did, and says nothing of how much better
they are.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from pydantic import JsonValue

from orchestration.keep.tables import Row
from orchestration.results.estimates import LISTED, ROUND_OFF, Design, Estimate
from orchestration.results.resampling import Found, Grid, better_sign, shared_grid, without_round_off
from orchestration.results.settings import Setting, setting_axes

#: fewer settings have no variance worth sharing out
LEAST_SETTINGS = 4
#: PED-ANOVA's best: this share of the settings, but at least as many as its authors ask for, and never more than half
BEST, BEST_AT_LEAST = 0.1, 5
Axes = Mapping[str, Sequence[JsonValue] | None]


@dataclass(frozen=True)
class AxisImportance:
    """`variance`: the share of variance in [0, 1]. `low` and `high`: its 95 % interval over seeds, None below three; it
    makes up for the lean of the plain share, which noise makes too large, and so may lie below it. `chance`: what the
    share would be on average if the axis' values were dealt to the settings at random, to be read beside it. `best`:
    PED-ANOVA's share, None where it has none. `settings`: those that the axis applies to, over which all of it is, but
    for `best`; `values`: how many values these have."""

    axis: str
    variance: float
    low: float | None
    high: float | None
    chance: float
    best: float | None
    settings: int
    values: int


@dataclass(frozen=True)
class Importance:
    """The axes by their share of variance, the largest first. `metric`: the column of trials.parquet; `seed_variance`:
    the share that lies between seeds; `settings`, `seeds`: how many; `top`: how many settings PED-ANOVA took for the
    best, with the reason why it has no shares, if so; `no_interval`: why there is no interval, if so."""

    metric: str
    axes: tuple[AxisImportance, ...]
    seed_variance: float
    settings: int
    seeds: int
    top: int
    no_best: str
    no_interval: str


def importance(
    trials: Sequence[Row],
    axes: Axes,
    design: Design = LISTED,
    metric: str = "average_accuracy",
) -> Found[Importance]:
    """How much each axis matters to a metric of the catalogue, over validation rows where trials have such a column,
    else over test rows; `metric` of the result says which.

    Settings are those that compete, on the seeds that all of them have (`resampling.shared_grid`); orders are averaged
    within a seed and are no axis; `method` is one where methods are compared. An axis that does not apply to some
    settings has its share of variance over those to which it does (over all of them it would be the share of whatever
    tells the two kinds apart), while to PED-ANOVA not applying is a regime of its own; it leaves out a regime of one
    setting. None below four settings, where fewer than two axes vary (the one that does has all the importance there
    is), and where all values are equal. Raises ValueError for a metric of which neither more nor less is better.
    """
    validation = f"validation/{metric}"
    column = validation if any(row.get(validation) is not None for row in trials) else metric
    sign = better_sign(column)
    grid = shared_grid(trials, axes, column, design)
    levels = axis_values(grid.settings, axes)
    if len(grid.settings) < LEAST_SETTINGS:
        return Found(None, f"it takes {LEAST_SETTINGS} settings that compete, and there are {len(grid.settings)}")
    if len(levels) < 2:
        return Found(None, f"it takes two axes that vary, and there is {next(iter(levels), 'none')}")
    if not grid.seeds:
        return Found(None, "no seed has every setting")
    if not np.ptp(without_round_off(grid.by_seed)):
        return Found(None, "all settings have the same value")
    top = _top(len(grid.settings))
    best = _ped_anova(levels, grid, sign, top)
    found = [_axis(axis, values, grid, best.value) for axis, values in levels.items()]
    ordered = tuple(sorted(found, key=lambda one: -one.variance))
    seeds = _eta(grid.by_seed.T, np.eye(len(grid.seeds)))
    counts = (len(grid.settings), len(grid.seeds), top)
    return Found(Importance(column, ordered, seeds, *counts, best.reason, grid.too_few))


def axis_values(settings: Sequence[Setting], axes: Axes) -> dict[str, dict[Setting, JsonValue]]:
    """Axis -> setting -> its value, of the settings to which it applies; only axes of which there are two values.
    `method` is among them where it is an axis; what a tuner has besides is none. A null says that an axis does not
    apply, unless the sweep declares it as a value."""
    found: dict[str, dict[Setting, JsonValue]] = {}
    for axis in [*(["method"] if "method" in axes else []), *setting_axes(axes)]:
        values = {one: one.method if axis == "method" else one.value(axis) for one in settings}
        null = None in (axes.get(axis) or [])
        values = {one: value for one, value in values.items() if null or value is not None}
        if len(set(values.values())) > 1:
            found[axis] = values
    return found


def _axis(
    axis: str, values: Mapping[Setting, JsonValue], grid: Grid, best: Mapping[str, float] | None
) -> AxisImportance:
    there = [setting in values for setting in grid.settings]
    levels = list(dict.fromkeys(values.values()))
    members = np.array([[value == level for value in values.values()] for level in levels])  # [values, settings]
    table = grid.values[there]
    share, chance = _eta(table.mean(2), members), _chance(table.mean(2), len(levels))
    low, high = (None, None) if grid.too_few else _interval(table, members, grid.drawn)
    told = None if best is None else best[axis]
    return AxisImportance(axis, share, low, high, chance, told, len(table), len(levels))


def _eta(table: np.ndarray, members: np.ndarray) -> float:
    """Eta squared of a table [rows, columns] whose rows fall into groups, members [groups, rows]: squares between the
    groups' means over all squares, 0 where there are none."""
    centred = table - table.mean()
    sizes = members.sum(1)
    groups = members @ centred.mean(1) / sizes
    total = float((centred**2).mean(1).sum())
    return float(groups**2 @ sizes) / total if total > (ROUND_OFF * np.abs(table).max()) ** 2 else 0.0


def _interval(table: np.ndarray, members: np.ndarray, drawn: bool) -> tuple[float, float]:
    """The 95 % interval of eta squared of a table [settings, seeds, orders] by the jackknife: pseudo-values of what is
    left without each seed, less the lean of the plain share, and t (Tukey 1958; Efron & Tibshirani, ch. 11). Drawn
    orders are left out one by one too, the two errors' squares added and the fewer units counted: no smaller than it
    must be."""
    share = _eta(table.mean(2), members)
    centre, square, fewest = share, 0.0, table.shape[1]
    for along in (1, 2) if drawn else (1,):
        n = table.shape[along]
        without = [_eta(np.delete(table, unit, along).mean(2), members) for unit in range(n)]
        pseudo = n * share - (n - 1) * np.array(without)
        centre += float(pseudo.mean()) - share
        square += float(pseudo.var(ddof=1)) / n
        fewest = min(fewest, n)
    low, high = Estimate(centre, math.sqrt(square), fewest - 1.0).interval or (centre, centre)
    return min(1.0, max(0.0, low)), min(1.0, max(0.0, high))


def _chance(table: np.ndarray, levels: int) -> float:
    """What eta squared is on average where `levels` values are dealt at random to the rows of a table [settings,
    seeds], however many each gets: the squares between the rows, times (levels - 1) / (settings - 1), by the variance
    of a mean drawn without replacement."""
    settings = len(table)
    return _eta(table, np.eye(settings)) * (levels - 1) / (settings - 1)


def _top(settings: int) -> int:
    return min(settings // 2, max(BEST_AT_LEAST, math.ceil(BEST * settings)))


def _ped_anova(
    levels: Mapping[str, Mapping[Setting, JsonValue]], grid: Grid, sign: int, top: int
) -> Found[dict[str, float]]:
    """PED-ANOVA's share of each axis in a setting's mean being among the `top` best."""
    goodness = sign * without_round_off(grid.means)
    if np.sort(goodness)[-top] == goodness.min():
        return Found(None, f"the {top} best settings cannot be told from the rest: they are equal")
    settings = [{axis: levels[axis][one] for axis in levels if one in levels[axis]} for one in grid.settings]
    from orchestration.search.optuna_search import ped_anova  # takes a second to load

    found = ped_anova(settings, goodness.tolist(), top)
    whole = sum(found.values())
    if whole <= ROUND_OFF:
        return Found(None, f"the {top} best settings have every value as often as all settings do")
    return Found({axis: found[axis] / whole for axis in levels})
