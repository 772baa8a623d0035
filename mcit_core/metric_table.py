"""The numbers that metrics read: an accuracy matrix and its references, checked."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Protocol, SupportsFloat, runtime_checkable


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


def _reference(name: str, values: list[float | None] | None, task: int) -> float:
    if values is None:
        raise UndefinedError(f"no {name} reference")
    value = values[task]
    if value is None:
        raise UndefinedError(f"{name} of task {task} missing")
    return value


def read_table(accuracy: object, zero_shot: object, direct: object) -> Table:
    """Raises ValueError where shapes do not fit or a cell is not a finite number."""
    rows = [_row(row, f"accuracy row {t}") for t, row in enumerate(_items(accuracy, "accuracy"))]
    if not rows:
        raise ValueError("accuracy has no rows: at least one task is needed")
    for t, row in enumerate(rows):
        if len(row) != len(rows):
            raise ValueError(f"accuracy must be square: {len(rows)} rows, but row {t} has {len(row)} cells")
    return Table(rows, _reference_row(zero_shot, "zero_shot", len(rows)), _reference_row(direct, "direct", len(rows)))


def _reference_row(values: object, name: str, tasks: int) -> list[float | None] | None:
    if values is None:
        return None
    row = _row(values, name)
    if len(row) != tasks:
        raise ValueError(f"{name} must have one value per task: {tasks} expected, {len(row)} given")
    return row


def _row(values: object, name: str) -> list[float | None]:
    return [_number(value, f"{name}, cell {index}") for index, value in enumerate(_items(values, name))]


@runtime_checkable
class _Array(Protocol):
    """A numpy array or a tensor."""

    def tolist(self) -> object: ...


def _items(values: object, name: str) -> list[object]:
    """A plain list from a list, tuple, numpy array or tensor."""
    plain = values.tolist() if isinstance(values, _Array) else values
    if not isinstance(plain, Iterable):
        raise ValueError(f"{name} must be a list of cells, not {type(values).__name__}")
    return list(plain)


def _number(value: object, name: str) -> float | None:
    if value is None:
        return None
    try:
        number = float(value) if isinstance(value, str | SupportsFloat) else None
    except (TypeError, ValueError):
        number = None
    if number is None:
        raise ValueError(f"{name}: {value!r} is not a number")
    if math.isinf(number):
        raise ValueError(f"{name}: {value!r} is not finite")
    return None if math.isnan(number) else number
