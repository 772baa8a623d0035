"""What a checked sweep file says, as data."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Literal

from mcit_core.choices import Choice, kind_of
from mcit_core.config import Value

Order = tuple[str, ...]
#: the search that goes through every point of the axes, which is none
GRID = "grid"


@dataclass(frozen=True)
class Range:
    """The numbers from `low` to `high`, both included. `log`: evenly spread in the logarithm; `step`: only every so
    many from `low` on. Whole numbers where `low`, `high` and `step` are."""

    low: int | float
    high: int | float
    log: bool = False
    step: int | float | None = None

    @property
    def whole(self) -> bool:
        return all(isinstance(number, int) for number in (self.low, self.high, self.step or 0))

    @property
    def stride(self) -> int | float:
        """From one number to the next, of a range whose numbers are counted."""
        return 1 if self.step is None else self.step

    @property
    def count(self) -> int | None:
        """How many numbers there are; None where they are not counted."""
        if self.step is not None:
            return round((self.high - self.low) / self.step) + 1
        return int(self.high - self.low) + 1 if self.whole else None

    def number(self, place: int) -> int | float:
        """The number at a place, counted from 0, of a range whose numbers are counted."""
        found = self.low + place * self.stride
        return found if self.whole else min(float(f"{found:.12g}"), float(self.high))

    def levels(self) -> list[Value]:
        """Every number. Raises ValueError where they are not counted."""
        if self.count is None:
            raise ValueError(f"the numbers from {self.low:g} to {self.high:g} have no step")
        return [self.number(place) for place in range(self.count)]

    def at(self, share: float) -> int | float:
        """The number below which this share in [0, 1) of the range lies."""
        if self.log:
            number = math.exp(math.log(self.low) + share * (math.log(self.high) - math.log(self.low)))
            return min(max(round(number), self.low), self.high) if self.whole else min(max(number, self.low), self.high)
        if self.count is not None:
            return self.number(min(int(share * self.count), self.count - 1))
        return self.low + share * (self.high - self.low)

    def nearest(self, value: float) -> int | float:
        """The number of the range that is nearest, without round-off."""
        if self.count is None or self.log:
            return value
        return self.number(round((value - self.low) / self.stride))

    def holds(self, value: Value) -> bool:
        """Whether a value is one of its numbers."""
        if isinstance(value, bool) or not isinstance(value, int | float) or not self.low <= value <= self.high:
            return False
        if self.count is None:
            return True
        return math.isclose(value, self.nearest(value), rel_tol=1e-9)

    def to_json(self) -> dict[str, Value]:
        """As a sweep file has it."""
        step: dict[str, Value] = {} if self.step is None else {"step": self.step}
        return {"low": self.low, "high": self.high, **({"log": True} if self.log else {}), **step}


@dataclass(frozen=True)
class RobustRule:
    """How the values that a setting has under several orders and seeds become one: over the factors in `over` by
    `statistic` (the mean; the worst; the mean of the worst share `level`), over the other ones by their mean."""

    over: tuple[Literal["order", "seed"], ...] = ("order", "seed")
    statistic: Literal["mean", "worst", "cvar"] = "mean"
    level: float = 0.25
    pruner: Literal["wilcoxon"] | None = None


@dataclass(frozen=True)
class HalvingRule:
    """After `min_stages` stages, and again after `reduction` times as many each time, the best 1/`reduction` of the
    settings go on (see `orchestration.plan.halving`)."""

    min_stages: int
    reduction: int

    def rungs(self, stages: int) -> list[int]:
        """The numbers of stages after which settings are dropped, in trials of `stages` stages."""
        found, rung = [], self.min_stages
        while rung < stages:
            found.append(rung)
            rung *= self.reduction
        return found

    def kept(self, settings: int) -> int:
        return -(-settings // self.reduction)


@dataclass(frozen=True)
class SweepSpec:
    """A checked sweep file (see `orchestration.plan.sweep_file`)."""

    name: str
    benchmark: Choice
    model: Choice
    method: str
    tasks: Order
    base: dict[str, Value]
    axes: dict[str, list[Value] | Range]  # by dotted path, without `order`
    orders: tuple[Order, ...]
    order_swept: bool
    orders_drawn: bool  # a sample of all that there are, which intervals take as random
    seeds: tuple[int, ...]
    references: tuple[str, ...]
    cpus: float
    gpus: float
    workers: int | None
    mlflow: str | None
    halving: HalvingRule | None = None
    system_metrics: bool = False
    search: Choice = GRID
    when: dict[str, dict[str, list[Value]]] = field(default_factory=dict)  # axis -> others, and their values, it needs
    robust: RobustRule | None = None
    processes: int = 1  # of one trial

    @property
    def searched(self) -> bool:
        """Whether settings are proposed as results come in, and not all known beforehand."""
        return kind_of(self.search) != GRID

    def axes_as_written(self) -> dict[str, Value]:
        """The axes without `order`, as a sweep file has them."""
        axes: dict[str, Value] = {}
        for name, values in self.axes.items():
            when: dict[str, Value] = {"when": {**self.when[name]}} if name in self.when else {}
            if isinstance(values, Range):
                axes[name] = {**values.to_json(), **when}
            else:
                axes[name] = {"values": values, **when} if when else values
        return axes

    def values(self) -> dict[str, list[Value]]:
        """The values of each axis as far as they can be listed: of a range, its ends."""
        return {name: [axis.low, axis.high] if isinstance(axis, Range) else axis for name, axis in self.axes.items()}
