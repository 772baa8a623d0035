"""What a task's place in the order does to it, and which task comes before it.

A reconstruction: differences from each task's own mean, as in the analysis of a Latin square (Fisher 1935; for
carry-over, Williams 1949), so that how hard a task is does not count.

What cannot be told apart: a task's place and what comes before it. Only the first place has nothing before it, and a
task at a later place has more behind it and less to come, so that the same figures carry practice, interference of what
was learned and the room left to forget. Predecessors count whatever came before *them*. Where tasks do not all stand at
all places equally often (few orders, most draws), an effect of a place is that of the tasks that stood there, and it is
mixed with what came before these; a Latin square balances places, a Williams square predecessors too, and only all
orders balance the rest. Orders are taken as given, listed or drawn: intervals are over seeds alone and speak of these
orders.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from pydantic import JsonValue

from mcit_core.stages.results import StageResult
from orchestration.keep.tables import Row, text_in
from orchestration.results.estimates import Estimate, estimate
from orchestration.results.matrices import AccuracyMatrix, accuracy_matrix
from orchestration.results.resampling import Found

Measure = Literal["final", "learning", "forgetting"]
MEASURES: tuple[Measure, ...] = ("final", "learning", "forgetting")
#: (seed, task, where) -> values; where: a position, or the task before
Cells = dict[tuple[JsonValue, str, JsonValue], list[float]]


@dataclass(frozen=True)
class PlaceEffect:
    """`effect`: over seeds, of the mean over tasks of a measure at a position (counted from 0) minus the task's own
    mean over positions; accuracies are in [0, 1], so that 0.01 is a point. `tasks`: how many tasks it is of; `count`:
    how many values, of all seeds."""

    position: int
    effect: Estimate
    tasks: int
    count: int


@dataclass(frozen=True)
class Predecessors:
    """`effects` [previous, task]: over seeds, of the learning accuracy of a task right after another, minus its mean
    over all predecessors, each counted once; accuracies in [0, 1]. None where the pair was never seen, and for a task
    that has had one predecessor alone, which is its own mean. `counts` [previous, task]: how many values, of all
    seeds."""

    tasks: tuple[str, ...]
    effects: tuple[tuple[Estimate | None, ...], ...]
    counts: tuple[tuple[int, ...], ...]


@dataclass(frozen=True)
class OrderEffects:
    """Of one setting. `places`: by measure, the positions in order; `forgetting` has no last position, whose task
    nothing follows. `seeds`: those that finished every order, which alone count; `orders`: how many."""

    places: dict[Measure, tuple[PlaceEffect, ...]]
    predecessors: Predecessors
    seeds: int
    orders: int


def order_effects(
    rows: Iterable[Row], stages: Mapping[str, Sequence[StageResult]], orders: Collection[JsonValue] = ()
) -> Found[OrderEffects]:
    """Of the finished trials of one setting and the stages of a RUN (`Results.stages`). orders: those that a seed must
    have for it to count, as in a `Design`; none stands for those that are found.

    Measures of task j, learned in stage p of T, on test rows: final R[T-1, j], learning R[p, j], forgetting
    max_{p<=l<T-1} R[l, j] - R[T-1, j], as in `mcit_core.metrics`. A task that a seed has at one position alone says
    nothing of positions and does not count. None below two orders, and where no seed has them all with these cells.
    """
    found = [(row, accuracy_matrix(stages.get(text_in(row, "trial"), []), _tasks(row))) for row in rows]
    measured = [(row, cells) for row, matrix in found if (cells := _cells(matrix)) is not None]
    wanted = list(dict.fromkeys(orders or (row["order"] for row, _ in found)))
    if len(wanted) < 2:
        return Found(None, f"it takes two orders, and there are {len(wanted)}")
    seeds = [
        seed
        for seed in dict.fromkeys(row["seed"] for row, _ in measured)
        if {row["order"] for row, _ in measured if row["seed"] == seed} >= set(wanted)
    ]
    whole = [(row, cells) for row, cells in measured if row["seed"] in seeds and row["order"] in wanted]
    if not whole:
        return Found(None, "no seed has every order with the accuracies of all its tasks")
    places = {measure: _places(whole, measure) for measure in MEASURES}
    return Found(OrderEffects(places, _predecessors(whole), len(seeds), len(wanted)))


def _tasks(row: Row) -> list[str]:
    return text_in(row, "order").split(">")


def _cells(matrix: AccuracyMatrix) -> dict[Measure, list[float | None]] | None:
    """Each measure of the tasks in their order; None where one of them is not known."""
    count = len(matrix.tasks)
    # R[t, j] of the stages from the task's own on; what comes before plays no part
    columns = [[row[j] for row in matrix.values[j:]] for j in range(count)]
    known = [[cell for cell in column if cell is not None] for column in columns]
    if not count or any(len(column) != count - j for j, column in enumerate(known)):
        return None
    return {
        "final": [column[-1] for column in known],
        "learning": [column[0] for column in known],
        "forgetting": [max(column[:-1]) - column[-1] if len(column) > 1 else None for column in known],
    }


Whole = Sequence[tuple[Row, dict[Measure, list[float | None]]]]


def _places(whole: Whole, measure: Measure) -> tuple[PlaceEffect, ...]:
    cells: Cells = {}
    for row, values in whole:
        for position, (task, value) in enumerate(zip(_tasks(row), values[measure], strict=True)):
            if value is not None:
                cells.setdefault((row["seed"], task, position), []).append(value)
    effects = _differences(cells)
    found = []
    for position in sorted({where for _, _, where in effects if isinstance(where, int)}):
        here = {(seed, task): effect for (seed, task, where), effect in effects.items() if where == position}
        by_seed: dict[JsonValue, list[float]] = {}
        for (seed, _), effect in here.items():
            by_seed.setdefault(seed, []).append(effect)
        count = sum(len(cells[seed, task, position]) for seed, task in here)
        mean = estimate(float(np.mean(values)) for values in by_seed.values())
        found.append(PlaceEffect(position, mean, len({task for _, task in here}), count))
    return tuple(found)


def _predecessors(whole: Whole) -> Predecessors:
    cells: Cells = {}
    for row, values in whole:
        tasks = _tasks(row)
        for previous, task, value in zip(tasks, tasks[1:], values["learning"][1:], strict=False):
            if value is not None:
                cells.setdefault((row["seed"], task, previous), []).append(value)
    effects = _differences(cells)
    every = tuple(dict.fromkeys(task for row, _ in whole for task in _tasks(row)))
    return Predecessors(
        every,
        tuple(tuple(_estimate_of(effects, task, previous) for task in every) for previous in every),
        tuple(tuple(_count(cells, task, previous) for task in every) for previous in every),
    )


def _differences(cells: Cells) -> dict[tuple[JsonValue, str, JsonValue], float]:
    """The mean of each cell minus the mean over the cells of its seed and task; only of seeds and tasks that have two
    cells or more."""
    groups: dict[tuple[JsonValue, str], dict[JsonValue, float]] = {}
    for (seed, task, where), values in cells.items():
        groups.setdefault((seed, task), {})[where] = float(np.mean(values))
    return {
        (seed, task, where): value - float(np.mean([*means.values()]))
        for (seed, task), means in groups.items()
        if len(means) > 1
        for where, value in means.items()
    }


def _estimate_of(
    effects: Mapping[tuple[JsonValue, str, JsonValue], float], task: str, where: JsonValue
) -> Estimate | None:
    values = [value for (_, name, place), value in effects.items() if (name, place) == (task, where)]
    return estimate(values) if values else None


def _count(cells: Cells, task: str, where: JsonValue) -> int:
    return sum(len(values) for (_, name, place), values in cells.items() if (name, place) == (task, where))
