"""Continual-learning metrics of an accuracy matrix.

`accuracy` is R [T, T]: R[t, j] is the accuracy on task j after stage t, stages and tasks in the order of training.
`zero_shot` [T] is the accuracy of the untouched model, `direct` [T] that of task j trained alone from it. Any cell may
be missing (None or NaN). A metric is defined only where every cell it reads is there; otherwise it is None, and
`explain` says why. Nothing depends on the scale: accuracies in [0, 1] and in [0, 100] both work.

The values at an earlier stage t are those of R[:t+1, :t+1].

To add a metric, write its formula here under `@metric(...)`, or `add` one that stages measure: files, MLflow, the
report and the console take it from the catalogue.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

from mcit_core.config import ALONE
from mcit_core.metric_table import Table, UndefinedError, read_table
from mcit_core.stages.results import Column


class Outcome(NamedTuple):
    """A metric's value, or None together with the reason why it is undefined (empty where it is defined)."""

    value: float | None
    reason: str


Formula = Callable[[Table], float]


@dataclass(frozen=True)
class Metric:
    """How a metric is got, named, read and printed.

    better: "" for a cost, which is no verdict. place: a headline metric is in every summary (console, figures,
    comparisons, main table), a main one in the main table, a further one in the table beneath. formula: over the
    accuracies of `column`; None where stages measure the metric under its name, and the last stage's value counts.
    """

    name: str
    title: str
    better: Literal["higher", "lower", ""]
    meaning: str
    unit: Literal["percent", "count", "mebibytes", "seconds"] = "percent"
    place: Literal["headline", "main", "further"] = "further"
    formula: Formula | None = None
    column: Column = "accuracy"

    @property
    def arrow(self) -> str:
        """Which way is better, to stand behind the title."""
        return {"higher": " ↑", "lower": " ↓", "": ""}[self.better]


#: every metric by name, in the order in which they are shown
CATALOGUE: dict[str, Metric] = {}
#: the formulas over accuracy by name, in the order in which their values are stored
METRICS: dict[str, Formula] = {}
#: column -> the formulas over it by name
FORMULAS: dict[Column, dict[str, Formula]] = {"accuracy": METRICS, "content_accuracy": {}}


def add(entry: Metric, before: str | None = None) -> None:
    """Put a metric into the catalogue: stored last, shown last or `before` another one. Raises ValueError for a name
    that is taken or a `before` that is not there."""
    if entry.name in CATALOGUE:
        raise ValueError(f"there is a metric {entry.name} already")
    later = [] if before is None else list(CATALOGUE)[list(CATALOGUE).index(before) :]
    CATALOGUE[entry.name] = entry
    for name in later:
        CATALOGUE[name] = CATALOGUE.pop(name)
    if entry.formula is not None:
        FORMULAS[entry.column][entry.name] = entry.formula


def metric(
    title: str,
    better: Literal["higher", "lower"],
    meaning: str,
    place: Literal["headline", "main", "further"] = "further",
    before: str | None = None,
) -> Callable[[Formula], Formula]:
    """Puts the decorated formula over accuracy into the catalogue, under the function's name."""

    def register(formula: Formula) -> Formula:
        name: str = formula.__name__  # type: ignore[attr-defined]
        add(Metric(name, title, better, meaning, place=place, formula=formula), before)
        return formula

    return register


def headline_names() -> list[str]:
    """The names of the headline metrics."""
    return [name for name, entry in CATALOGUE.items() if entry.place == "headline"]


@metric("average accuracy", "higher", "mean accuracy over all tasks after the last stage", place="headline")
def average_accuracy(table: Table) -> float:
    """mean_j R[T-1, j]: how good the final model is at everything it was taught.

    Also called ACC (GEM, Lopez-Paz & Ranzato 2017), AA, MFN, last.
    """
    return _mean(table.cell(table.tasks - 1, j) for j in range(table.tasks))


@metric(
    "learning accuracy",
    "higher",
    "mean accuracy on each task right after the stage that learned it",
    place="main",
)
def learning_accuracy(table: Table) -> float:
    """mean_t R[t, t]: how good the model is at each task right after learning it.

    Also called LA (MER, Riemer et al. 2019), MFT, New.
    """
    return _mean(table.cell(t, t) for t in range(table.tasks))


@metric(
    "mean average accuracy",
    "higher",
    "after every stage the mean over the tasks learned so far, averaged over the stages",
)
def mean_average_accuracy(table: Table) -> float:
    """mean_t mean_{j<=t} R[t, j]: the average accuracy over the tasks seen so far, averaged over the stages.

    Also called MAA, A-bar, average incremental accuracy (iCaRL, Rebuffi et al. 2017).
    """
    return _mean(_mean(table.cell(t, j) for j in range(t + 1)) for t in range(table.tasks))


@metric(
    "backward transfer",
    "higher",
    "change of each earlier task between its own stage and the end; negative means it was forgotten",
)
def backward_transfer(table: Table) -> float:
    """mean_{j<T-1} R[T-1, j] - R[j, j]: what later stages did to earlier tasks; negative is forgetting.

    Also called BWT (GEM, Lopez-Paz & Ranzato 2017). Equals T/(T-1) * (average_accuracy - learning_accuracy).
    """
    return _mean(table.cell(table.tasks - 1, j) - table.cell(j, j) for j in table.earlier_tasks())


@metric(
    "forgetting",
    "lower",
    "how far each earlier task fell from its best accuracy to its accuracy at the end",
    place="headline",
    before="backward_transfer",
)
def forgetting(table: Table) -> float:
    """mean_{j<T-1} max_{j<=l<T-1} R[l, j] - R[T-1, j]: the drop from a task's best earlier accuracy.

    Also called F (Chaudhry et al. 2018, whose maximum starts at the first stage instead of at the task's own).
    Negative where the last stage improved earlier tasks; never below -backward_transfer.
    """
    last = table.tasks - 1
    return _mean(max(table.cell(t, j) for t in range(j, last)) - table.cell(last, j) for j in table.earlier_tasks())


def forgetting_all_rows(table: Table) -> float:
    """mean_{j<T-1} max_l R[l, j] - R[T-1, j], l over all rows: those before the task's own stage and the last one too.

    CoIN++'s convention, and Mammoth's but for cells that it has not evaluated, which count as 0 there. Never
    negative, never below `forgetting`.
    """
    rows, last = range(table.tasks), table.tasks - 1
    return _mean(max(table.cell(t, j) for t in rows) - table.cell(last, j) for j in table.earlier_tasks())


@metric(
    "forward transfer",
    "higher",
    "accuracy on a task just before it is learned, minus that of the untouched model (zero_shot)",
    place="headline",
)
def forward_transfer(table: Table) -> float:
    """mean_{j>=1} R[j-1, j] - zero_shot[j]: what earlier stages gave a task before it was trained.

    Also called FWT (GEM, Lopez-Paz & Ranzato 2017, whose reference is a randomly initialised model; here it is the
    pre-trained model before the first stage).
    """
    return _mean(table.cell(j - 1, j) - table.zero_shot_of(j) for j in table.later_tasks())


@metric(
    "transfer to direct",
    "higher",
    "accuracy right after learning a task, minus that of learning it alone from the untouched model (direct); "
    "negative means earlier tasks hurt the learning of later ones",
    place="headline",
)
def transfer_to_direct(table: Table) -> float:
    """mean_{j>=1} R[j, j] - direct[j]: negative where earlier stages hurt the learning of this one.

    The "negative forward transfer" of Fwd-Prompt (Zheng et al. 2024).
    """
    return _mean(table.cell(j, j) - table.direct_of(j) for j in table.later_tasks())


@metric(
    "intransigence",
    "lower",
    "accuracy of each task learned alone (direct), minus that right after its stage in the sequence",
)
def intransigence(table: Table) -> float:
    """mean_j direct[j] - R[j, j]: the inability to learn what training alone would have learnt.

    Chaudhry et al. 2018; their reference is joint training, here it is the task trained alone.
    """
    return _mean(table.direct_of(j) - table.cell(j, j) for j in range(table.tasks))


add(
    Metric(
        "content_average_accuracy",
        "content accuracy",
        "higher",
        "average accuracy when an answer that is right in content counts whatever format was asked for",
        formula=average_accuracy,
        column="content_accuracy",
    )
)
add(
    Metric(
        "content_forgetting",
        "content forgetting",
        "lower",
        "forgetting, measured on content accuracy",
        formula=forgetting,
        column="content_accuracy",
    )
)
add(
    Metric(
        "content_forward_transfer",
        "content forward transfer",
        "higher",
        "forward transfer, measured on content accuracy: it can be negative, and the demanded format is no part of it",
        formula=forward_transfer,
        column="content_accuracy",
    )
)
add(
    Metric(
        "content_forward_transfer_untrained",
        "content forward transfer over the untrained tuner",
        "higher",
        "content forward transfer, from the model with the tuner in front as it is before any training: what its mere "
        "presence costs is no part of it",
    )
)
add(
    Metric(
        "pretrained_retention",
        "pre-trained retention",
        "higher",
        "accuracy left on a held-out sample of the model's own pre-training mixture, as a share of the original",
        place="main",
    )
)
add(Metric("trained_parameters", "trained parameters", "", "number of parameters that training changes", "count"))
add(Metric("memory_bytes", "kept state (MiB)", "", "size of what the last stage leaves for a next one", "mebibytes"))


def backward_transfer_over_tasks(table: Table) -> float:
    """sum_{j<T-1} (R[T-1, j] - R[j, j]) / T, which is average_accuracy - learning_accuracy: BWT of CoIN (Chen et al.
    2024), whose last task counts as a zero."""
    return backward_transfer(table) * (table.tasks - 1) / table.tasks


def average_by_column(table: Table) -> float:
    """mean_j mean_{t>=j} R[t, j]: the mean over tasks of a task's mean from its own stage to the end. Avg of HiDe-LLaVA
    and Octopus."""
    stages = range(table.tasks)
    return _mean(_mean(table.cell(t, j) for t in stages[j:]) for j in stages)


def average_lower_triangle(table: Table) -> float:
    """The mean of all cells R[t, j] with t >= j. A of Díaz-Rodríguez et al. 2018, as in Continuum."""
    return _mean(table.cell(t, j) for t in range(table.tasks) for j in range(t + 1))


def backward_transfer_all_cells(table: Table) -> float:
    """The mean of R[t, j] - R[j, j] over all t > j, so that every later stage counts and not the last alone. BWT of
    Díaz-Rodríguez et al. 2018, as in Continuum."""
    return _mean(table.cell(t, j) - table.cell(j, j) for t in table.later_tasks() for j in range(t))


#: other papers' conventions, so that a published figure can be recomputed under its own: `summarise(variants=True)`
VARIANTS: dict[str, Formula] = {
    "backward_transfer_over_tasks": backward_transfer_over_tasks,
    "average_by_column": average_by_column,
    "average_lower_triangle": average_lower_triangle,
    "backward_transfer_all_cells": backward_transfer_all_cells,
    "forgetting_all_rows": forgetting_all_rows,
}


def summarise(
    accuracy: object,
    zero_shot: object = None,
    direct: object = None,
    column: Column = "accuracy",
    variants: bool = False,
) -> dict[str, float | None]:
    """Every metric over `column` by name, with `variants` those of other papers too; None, never 0 or NaN, where it is
    undefined.

    accuracy [T, T], zero_shot [T], direct [T]: nested lists, numpy arrays or tensors, None or NaN for a missing cell.
    Raises ValueError where shapes do not fit or a cell is not a finite number.
    """
    table = read_table(accuracy, zero_shot, direct)
    formulas = FORMULAS[column] | (VARIANTS if variants else {})
    return {name: _outcome(formula, table).value for name, formula in formulas.items()}


def summarise_protocol(
    protocol: str,
    accuracy: Sequence[Sequence[float | None]],
    zero_shot: Sequence[float | None] | None = None,
    direct: Sequence[float | None] | None = None,
) -> dict[str, float | None]:
    """`summarise` for every protocol. What trains no sequence has average_accuracy alone: the mean over each task's
    accuracy where all tasks are learned at once or none is, and where each is learned by itself, its own."""
    if protocol == "sequence":
        return summarise(accuracy, zero_shot, direct)
    if protocol in ALONE:
        cells = [row[i] for i, row in enumerate(accuracy)]
    else:
        cells = [*(accuracy[-1] if accuracy else zero_shot or [])]
    known = [cell for cell in cells if cell is not None]
    values: dict[str, float | None] = dict.fromkeys(METRICS)
    values["average_accuracy"] = _mean(known) if known and len(known) == len(cells) else None
    if protocol in ALONE:
        values["learning_accuracy"] = values["average_accuracy"]
    return values


def explain(accuracy: object, zero_shot: object = None, direct: object = None) -> dict[str, Outcome]:
    """As `summarise`, with the reason beside each undefined value, and with VARIANTS too."""
    table = read_table(accuracy, zero_shot, direct)
    return {name: _outcome(formula, table) for name, formula in (METRICS | VARIANTS).items()}


def reason_undefined(formula: Formula, tasks: int, zero_shot: bool, direct: bool) -> str:
    """Why a formula has no value where every cell is known and the references are as told; empty where it has one."""
    row: list[float | None] = [1.0] * tasks
    return _outcome(formula, Table([row] * tasks, row if zero_shot else None, row if direct else None)).reason


def _outcome(formula: Formula, table: Table) -> Outcome:
    try:
        return Outcome(formula(table), "")
    except UndefinedError as why:
        return Outcome(None, str(why))


def _mean(values: Iterable[float]) -> float:
    """Exactly rounded sum, so that the order of the tasks cannot change the result."""
    numbers = list(values)
    return math.fsum(numbers) / len(numbers)
