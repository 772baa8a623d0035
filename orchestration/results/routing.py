"""Which group of tasks answered, where a method sends every row to one by its instruction."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from mcit_core.stages.results import Matrix, StageResult
from orchestration.results.estimates import estimate

OWN, SENT = "grouping/group/", "grouping/sent/"


@dataclass(frozen=True)
class Routing:
    """`shares` [tasks, groups]: of each task's test rows the share that each group answered, None where not told;
    `own` [tasks]: the number of the task's own group."""

    tasks: tuple[str, ...]
    own: tuple[int, ...]
    shares: Matrix

    @property
    def groups(self) -> list[tuple[str, ...]]:
        """The tasks of each group, by its number."""
        last = max(self.own, default=-1)
        pairs = list(zip(self.tasks, self.own, strict=True))
        return [tuple(task for task, group in pairs if group == number) for number in range(last + 1)]


def routing_of(stages: Sequence[StageResult]) -> Routing | None:
    """Of one trial after its last stage, tasks in the order in which they were told of; None where it has no groups."""
    metrics = stages[-1].metrics if stages else {}
    own = {name.removeprefix(OWN): int(value) for name, value in metrics.items() if name.startswith(OWN)}
    if not own:
        return None
    groups = range(max(own.values()) + 1)
    shares = [[metrics.get(f"{SENT}{task}/{group}") for group in groups] for task in own]
    return Routing(tuple(own), tuple(own.values()), shares)


def mean_routing(found: Sequence[Routing]) -> Routing | None:
    """The mean of trials, cell by cell over those that have the cell; None where there is none, or where they group the
    tasks in different ways, so that a number stands for different groups."""
    if not found or any((other.tasks, other.own) != (found[0].tasks, found[0].own) for other in found):
        return None
    first = found[0]
    cells = [
        [estimate(other.shares[t][g] for other in found).mean for g in range(len(row))]
        for t, row in enumerate(first.shares)
    ]
    return Routing(first.tasks, first.own, cells)
