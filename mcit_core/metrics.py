"""Continual-learning metrics of an accuracy matrix.

`accuracy` is R [T, T]: R[t, j] is the accuracy on task j after stage t, stages and tasks in the order of training.
`zero_shot` [T] is the accuracy of the untouched model, `direct` [T] that of task j trained alone from it. Any cell may
be missing (None or NaN). A metric is defined only where every cell it reads is there; otherwise it is None, and
`explain` says why. Nothing depends on the scale: accuracies in [0, 1] and in [0, 100] both work.

The values at an earlier stage t are those of R[:t+1, :t+1].
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, NamedTuple


class Outcome(NamedTuple):
    """A metric's value, or None together with the reason why it is undefined (empty where it is defined)."""

    value: float | None
    reason: str


class UndefinedError(Exception):
    """A metric cannot be computed; the message is the reason."""


@dataclass(frozen=True)
class Table:
    """The numbers a metric reads. Reading a missing one, or a reference nobody gave, raises UndefinedError."""

    accuracy: list[list[float | None]]
    zero_shot: list[float | None] | None
    direct: list[float | None] | None

    @property
    def tasks(self) -> int:
        return len(self.accuracy)

    def earlier_tasks(self) -> range:
        """Every task but the last, which nothing came after."""
        if self.tasks == 1:
            raise UndefinedError("only one task")
        return range(self.tasks - 1)

    def later_tasks(self) -> range:
        """Every task but the first, which nothing came before."""
        if self.tasks == 1:
            raise UndefinedError("only one task")
        return range(1, self.tasks)

    def cell(self, stage: int, task: int) -> float:
        value = self.accuracy[stage][task]
        if value is None:
            raise UndefinedError(f"cell [{stage}, {task}] missing")
        return value

    def zero_shot_of(self, task: int) -> float:
        return _reference("zero_shot", self.zero_shot, task)

    def direct_of(self, task: int) -> float:
        return _reference("direct", self.direct, task)


def average_accuracy(table: Table) -> float:
    """mean_j R[T-1, j]: how good the final model is at everything it was taught.

    Also called ACC (GEM, Lopez-Paz & Ranzato 2017), AA, MFN, last.
    """
    return _mean(table.cell(table.tasks - 1, j) for j in range(table.tasks))


def learning_accuracy(table: Table) -> float:
    """mean_t R[t, t]: how good the model is at each task right after learning it.

    Also called LA (MER, Riemer et al. 2019), MFT, New.
    """
    return _mean(table.cell(t, t) for t in range(table.tasks))


def mean_average_accuracy(table: Table) -> float:
    """mean_t mean_{j<=t} R[t, j]: the average accuracy over the tasks seen so far, averaged over the stages.

    Also called MAA, A-bar, average incremental accuracy (iCaRL, Rebuffi et al. 2017).
    """
    return _mean(_mean(table.cell(t, j) for j in range(t + 1)) for t in range(table.tasks))


def backward_transfer(table: Table) -> float:
    """mean_{j<T-1} R[T-1, j] - R[j, j]: what later stages did to earlier tasks; negative is forgetting.

    Also called BWT (GEM, Lopez-Paz & Ranzato 2017). Equals T/(T-1) * (average_accuracy - learning_accuracy).
    """
    return _mean(table.cell(table.tasks - 1, j) - table.cell(j, j) for j in table.earlier_tasks())


def forgetting(table: Table) -> float:
    """mean_{j<T-1} max_{j<=l<T-1} R[l, j] - R[T-1, j]: the drop from a task's best earlier accuracy.

    Also called F (Chaudhry et al. 2018, whose maximum starts at the first stage instead of at the task's own).
    Negative where the last stage improved earlier tasks; never below -backward_transfer.
    """
    last = table.tasks - 1
    return _mean(max(table.cell(t, j) for t in range(j, last)) - table.cell(last, j) for j in table.earlier_tasks())


def forgetting_all_rows(table: Table) -> float:
    """mean_{j<T-1} max_l R[l, j] - R[T-1, j], l over all rows: those before the task's own stage and the last one too.

    A convention of several public implementations; never negative, never below `forgetting`.
    """
    rows, last = range(table.tasks), table.tasks - 1
    return _mean(max(table.cell(t, j) for t in rows) - table.cell(last, j) for j in table.earlier_tasks())


def forward_transfer(table: Table) -> float:
    """mean_{j>=1} R[j-1, j] - zero_shot[j]: what earlier stages gave a task before it was trained.

    Also called FWT (GEM, Lopez-Paz & Ranzato 2017, whose reference is a randomly initialised model; here it is the
    pre-trained model before the first stage).
    """
    return _mean(table.cell(j - 1, j) - table.zero_shot_of(j) for j in table.later_tasks())


def transfer_to_direct(table: Table) -> float:
    """mean_{j>=1} R[j, j] - direct[j]: negative where earlier stages hurt the learning of this one.

    The "negative forward transfer" of Fwd-Prompt (Zheng et al. 2024).
    """
    return _mean(table.cell(j, j) - table.direct_of(j) for j in table.later_tasks())


def intransigence(table: Table) -> float:
    """mean_j direct[j] - R[j, j]: the inability to learn what training alone would have learnt.

    Chaudhry et al. 2018; their reference is joint training, here it is the task trained alone.
    """
    return _mean(table.direct_of(j) - table.cell(j, j) for j in range(table.tasks))


METRICS: dict[str, Callable[[Table], float]] = {
    metric.__name__: metric
    for metric in (
        average_accuracy,
        learning_accuracy,
        mean_average_accuracy,
        backward_transfer,
        forgetting,
        forward_transfer,
        transfer_to_direct,
        intransigence,
    )
}

VARIANTS: dict[str, Callable[[Table], float]] = {"forgetting_all_rows": forgetting_all_rows}
"""Other conventions, so that a published figure can be recomputed under its own; `explain` has them beside METRICS."""


def summarise(accuracy: Any, zero_shot: Any = None, direct: Any = None) -> dict[str, float | None]:
    """Every metric of METRICS by name; None, never 0 or NaN, where it is undefined.

    accuracy [T, T], zero_shot [T], direct [T]: nested lists, numpy arrays or tensors, None or NaN for a missing cell.
    Raises ValueError where shapes do not fit or a cell is not a finite number.
    """
    outcomes = explain(accuracy, zero_shot, direct)
    return {name: outcomes[name].value for name in METRICS}


def summarise_protocol(
    protocol: str, accuracy: Any, zero_shot: Any = None, direct: Any = None
) -> dict[str, float | None]:
    """`summarise` for every protocol. What trains no sequence has average_accuracy alone: the mean over each task's
    accuracy where all tasks are learned at once or none is, and where each is learned by itself, its own."""
    if protocol == "sequence":
        return summarise(accuracy, zero_shot, direct)
    if protocol == "direct":
        cells = [row[i] for i, row in enumerate(accuracy)]
    else:
        cells = accuracy[-1] if accuracy else zero_shot or []
    complete = bool(cells) and None not in cells
    values: dict[str, float | None] = dict.fromkeys(METRICS)
    values["average_accuracy"] = _mean(cells) if complete else None
    if protocol == "direct":
        values["learning_accuracy"] = values["average_accuracy"]
    return values


def explain(accuracy: Any, zero_shot: Any = None, direct: Any = None) -> dict[str, Outcome]:
    """As `summarise`, with the reason beside each undefined value, and with VARIANTS too."""
    table = _read(accuracy, zero_shot, direct)
    return {name: _outcome(metric, table) for name, metric in (METRICS | VARIANTS).items()}


def _outcome(metric: Callable[[Table], float], table: Table) -> Outcome:
    try:
        return Outcome(metric(table), "")
    except UndefinedError as why:
        return Outcome(None, str(why))


def _mean(values: Iterable[float]) -> float:
    """Exactly rounded sum, so that the order of the tasks cannot change the result."""
    numbers = list(values)
    return math.fsum(numbers) / len(numbers)


def _reference(name: str, values: list[float | None] | None, task: int) -> float:
    if values is None:
        raise UndefinedError(f"no {name} reference")
    value = values[task]
    if value is None:
        raise UndefinedError(f"{name} of task {task} missing")
    return value


def _read(accuracy: Any, zero_shot: Any, direct: Any) -> Table:
    rows = [_row(row, f"accuracy row {t}") for t, row in enumerate(_items(accuracy, "accuracy"))]
    if not rows:
        raise ValueError("accuracy has no rows: at least one task is needed")
    for t, row in enumerate(rows):
        if len(row) != len(rows):
            raise ValueError(f"accuracy must be square: {len(rows)} rows, but row {t} has {len(row)} cells")
    return Table(rows, _reference_row(zero_shot, "zero_shot", len(rows)), _reference_row(direct, "direct", len(rows)))


def _reference_row(values: Any, name: str, tasks: int) -> list[float | None] | None:
    if values is None:
        return None
    row = _row(values, name)
    if len(row) != tasks:
        raise ValueError(f"{name} must have one value per task: {tasks} expected, {len(row)} given")
    return row


def _row(values: Any, name: str) -> list[float | None]:
    return [_number(value, f"{name}, cell {index}") for index, value in enumerate(_items(values, name))]


def _items(values: Any, name: str) -> list[Any]:
    """A plain list from a list, tuple, numpy array or tensor."""
    try:
        return list(values.tolist() if hasattr(values, "tolist") else values)
    except TypeError:
        raise ValueError(f"{name} must be a list of cells, not {type(values).__name__}") from None


def _number(value: Any, name: str) -> float | None:
    if value is None:
        return None
    try:
        number = float(value)
    except (TypeError, ValueError):
        raise ValueError(f"{name}: {value!r} is not a number") from None
    if math.isinf(number):
        raise ValueError(f"{name}: {value!r} is not finite")
    return None if math.isnan(number) else number
