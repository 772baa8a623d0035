"""The floor that needs no model: the commonest training answer of every kind of question."""

from __future__ import annotations

from collections import Counter

from mcit_core.benchmarks import mean_points, scored
from mcit_core.data.workbench import SPLITS, Workbench
from mcit_core.stages.results import Cell


def majority_cells(bench: Workbench, task: str, most: int | None = None) -> list[Cell]:
    """The scores on a task's validation and test rows (the first `most` of each, None: all) of one constant answer for
    each kind of question that the benchmark tells apart (`content_kind`): the commonest of the task's training rows of
    that kind, of equals the first in the alphabet; of the whole task where the kind is new."""
    train = bench.rows(task, "train")
    of_kind: dict[str | None, Counter[str]] = {None: Counter(train.answers)}
    for kind, answer in zip(train.content_kinds, train.answers, strict=True):
        of_kind.setdefault(kind, Counter())[answer] += 1
    commonest = {kind: min(found, key=lambda answer: (-found[answer], answer)) for kind, found in of_kind.items()}
    cells = []
    for split in SPLITS:
        rows = bench.rows(task, split)
        asked = list(zip(rows.answers, rows.content_kinds, strict=True))[:most]
        points = []
        for i, (answer, kind) in enumerate(asked):
            guess = commonest.get(kind, commonest[None])
            points.append(scored(bench.benchmark, task, guess, answer, kind, rows.scoring(i)))
        cells.append(Cell(task, split, n=len(asked), **mean_points(points)._asdict()))
    return cells
