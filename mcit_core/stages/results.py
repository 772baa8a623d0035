"""What a stage showed, typed: accuracy cells, metrics, traces, and the accuracy matrix that they make.

Accuracies are in [0, 1]. Everything here becomes JSON by `to_json` and comes back by `from_json` as it was.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Literal, Self

from pydantic import JsonValue, TypeAdapter

#: a value per training step, None where it is undefined
Trace = list[float | None]
#: [stages][tasks] accuracy, None where a cell was not measured
Matrix = list[list[float | None]]
Column = Literal["accuracy", "content_accuracy"]
#: the number of the untouched model's results, which come before stage 0
UNTOUCHED = -1
#: the metric, 1, of a stage that trained and left every weight as it was
UNCHANGED = "weights_unchanged"
#: the metric, 1, of a stage whose pre-trained space is that of the first task, since the model has no sample of its own
NO_SAMPLE = "subspace/no_sample"


class _Json:
    """JSON and back, checked against the fields' types."""

    def to_json(self) -> dict[str, JsonValue]:
        return asdict(self)  # type: ignore[call-overload, no-any-return]

    @classmethod
    def from_json(cls, value: object) -> Self:
        """Raises ValueError (pydantic's ValidationError) where `value` is not what `to_json` made."""
        return TypeAdapter(cls).validate_python(value)


@dataclass(frozen=True)
class Cell(_Json):
    """The accuracy of one task's split after one stage, over `n` rows (0: not told, as of what was imported)."""

    task: str
    split: str
    accuracy: float  # mean score
    content_accuracy: float | None  # right in content, whatever the demanded style; None where no answers are known
    n: int
    accuracy_strict: float | None = None  # mean score by the data set's own rule, where there are two conventions
    format_accuracy: float | None = None  # share of the answers that have the shape of a right one


@dataclass(frozen=True)
class Evaluation(_Json):
    """What one stage's weights make of a split of a task."""

    accuracy: list[Cell]
    chosen: list[list[int]] | None  # the tuner's choices for each row
    routed: list[float] | None  # share of the rows that each instruction group took
    seconds: float
    distinct: int | None = None  # how many different answers were given; None where an earlier version did not count
    cpu_seconds: float | None = None  # as measured; None in an earlier version
    shapes: dict[str, float] | None = None  # form of an answer -> share of the answers; None in an earlier version
    made_from: dict[str, JsonValue] | None = None  # what its key is the digest of; None in an earlier version


@dataclass(frozen=True)
class Measured(_Json):
    """What was measured while a stage trained."""

    metrics: dict[str, float] = field(default_factory=dict)
    traces: dict[str, Trace] = field(default_factory=dict)


@dataclass(frozen=True)
class StageResult(_Json):
    """What a stage showed; stage UNTOUCHED (task None) is the model before the first one. `reused` tells that its
    training came from the store."""

    stage: int
    task: str | None
    accuracy: list[Cell] = field(default_factory=list)
    metrics: dict[str, float] = field(default_factory=dict)
    traces: dict[str, Trace] = field(default_factory=dict)
    reused: bool = False

    def row(self, order: Sequence[str], split: str, column: Column = "accuracy") -> list[float | None]:
        """The accuracies on the tasks of `order`."""
        cells = {cell.task: getattr(cell, column) for cell in self.accuracy if cell.split == split}
        return [cells.get(task) for task in order]


def matrix(
    results: Iterable[StageResult], order: Sequence[str], split: str = "test", column: Column = "accuracy"
) -> Matrix:
    """[stages so far][tasks of `order`] on one split, the untouched model left out."""
    return [result.row(order, split, column) for result in results if result.stage != UNTOUCHED]


def untouched(
    results: Iterable[StageResult], order: Sequence[str], split: str = "test", column: Column = "accuracy"
) -> list[float | None] | None:
    """The untouched model's row on the tasks of `order`, None where it was not evaluated."""
    return next((result.row(order, split, column) for result in results if result.stage == UNTOUCHED), None)
