"""What a checked sweep file says, as data."""

from __future__ import annotations

from dataclasses import dataclass

from mcit_core.choices import Choice
from mcit_core.config import Value

Order = tuple[str, ...]


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
    axes: dict[str, list[Value]]  # by dotted path, without `order`
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
    processes: int = 1
