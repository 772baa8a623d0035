"""Accuracy matrices of trials, and their mean."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist

from mcit_core.stages.results import Matrix, StageResult, matrix, untouched
from orchestration.results.estimates import CONFIDENCE, estimate


@dataclass(frozen=True)
class AccuracyMatrix:
    """values[t][j]: accuracy on tasks[j] after stage t; untouched[j]: before stage 0. None where not measured."""

    tasks: list[str]
    values: Matrix
    untouched: list[float | None]


def accuracy_matrix(stages: Sequence[StageResult], order: Sequence[str], split: str = "test") -> AccuracyMatrix:
    """The accuracy matrix of one trial, tasks in the order of training; without tasks where nothing was measured."""
    if not any(cell.split == split for stage in stages for cell in stage.accuracy):
        return AccuracyMatrix([], [], [])
    missing: list[float | None] = [None] * len(order)
    values = matrix(stages, order, split)
    values += [missing] * (len(order) - len(values))
    return AccuracyMatrix(list(order), values, untouched(stages, order, split) or missing)


def test_set_error(stages: Sequence[StageResult]) -> tuple[float, int] | None:
    """Half the 95 % interval that the test set leaves to a trial's average accuracy after its last stage, and the rows
    of the set: rows are drawn independently, tasks weigh the same, an answer is right or wrong (normal approximation).
    None where nothing was tested, or nothing is told of the rows."""
    cells = [cell for cell in stages[-1].accuracy if cell.split == "test"] if stages else []
    if not cells or not all(cell.n for cell in cells):
        return None
    variance = sum(cell.accuracy * (1 - cell.accuracy) / cell.n for cell in cells) / len(cells) ** 2
    return NormalDist().inv_cdf((1 + CONFIDENCE) / 2) * math.sqrt(variance), sum(cell.n for cell in cells)


def mean_matrix(matrices: Sequence[AccuracyMatrix]) -> AccuracyMatrix:
    """Cell by cell the mean of the matrices that have the cell; all must have the same tasks in the same order."""
    if not matrices:
        return AccuracyMatrix([], [], [])
    tasks = matrices[0].tasks
    if any(other.tasks != tasks for other in matrices):
        raise ValueError("matrices of different orders have no common mean")
    size = range(len(tasks))
    values = [[estimate(other.values[t][j] for other in matrices).mean for j in size] for t in size]
    return AccuracyMatrix(tasks, values, [estimate(other.untouched[j] for other in matrices).mean for j in size])
