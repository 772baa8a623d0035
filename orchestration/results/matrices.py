"""Accuracy matrices of trials, and their mean."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from orchestration.results.estimates import estimate, present
from orchestration.results.reading import Row


@dataclass(frozen=True)
class AccuracyMatrix:
    """values[t][j]: accuracy on tasks[j] after stage t; untouched[j]: before stage 0. None where not measured."""

    tasks: list[str]
    values: list[list[float | None]]
    untouched: list[float | None]


def accuracy_matrix(accuracy: Iterable[Row], trial: str, split: str = "test") -> AccuracyMatrix:
    """The accuracy matrix of one trial, tasks in the order of training."""
    rows = [row for row in accuracy if row["trial"] == trial and row["split"] == split]
    tasks = rows[0]["order"].split(">") if rows else []
    cells = {(row["stage"], row["task"]): row["accuracy"] for row in rows if present([row["accuracy"]])}
    values = [[cells.get((stage, task)) for task in tasks] for stage in range(len(tasks))]
    return AccuracyMatrix(tasks, values, [cells.get((-1, task)) for task in tasks])


def mean_matrix(matrices: Sequence[AccuracyMatrix]) -> AccuracyMatrix:
    """Cell by cell the mean of the matrices that have the cell; all must have the same tasks in the same order."""
    if not matrices:
        return AccuracyMatrix([], [], [])
    tasks = matrices[0].tasks
    if any(matrix.tasks != tasks for matrix in matrices):
        raise ValueError("matrices of different orders have no common mean")
    size = range(len(tasks))
    values = [[estimate(matrix.values[t][j] for matrix in matrices).mean for j in size] for t in size]
    return AccuracyMatrix(tasks, values, [estimate(matrix.untouched[j] for matrix in matrices).mean for j in size])
