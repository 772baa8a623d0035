"""The space that the axes of a sweep span: its points, and which of them make sense. Imports no torch.

A point has a value for every axis that applies to it. An axis does not where a condition of the sweep file (`when`)
does not hold, or where the method or the kind of protection at the point reads nothing of it.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterator, Mapping, Sequence
from graphlib import TopologicalSorter

from pydantic import ValidationError

from mcit_core.config import PROTECTING, Value
from mcit_core.methods import build_experiment, unread
from orchestration.plan.spec import Range, SweepSpec

Point = dict[str, Value]
#: points at random in a sample of a space
SAMPLED = 48


class Space:
    """`axes`: in the order in which their values are to be chosen, so that what decides on whether an axis applies is
    known by then. Raises graphlib.CycleError where conditions go in a circle."""

    def __init__(self, spec: SweepSpec) -> None:
        self.spec = spec
        names = asking_order(spec)
        self.axes: dict[str, list[Value] | Range] = {name: spec.axes[name] for name in names}

    def applies(self, axis: str, point: Mapping[str, Value]) -> bool:
        """Whether an axis applies, given the values of those before it."""
        for other, values in self.spec.when.get(axis, {}).items():
            if other not in point or point[other] not in values:
                return False
        return axis == "method" or axis not in unread(*self._dotted({**point, axis: None}))

    def _dotted(self, point: Mapping[str, Value]) -> tuple[str, dict[str, Value]]:
        """The method at a point, and what the sweep sets, by dotted path, whatever of it is read."""
        dotted = {**self.spec.base, **point}
        return str(dotted.pop("method", self.spec.method)), dotted

    def reduced(self, point: Mapping[str, Value]) -> Point:
        """A point without the axes that do not apply to it."""
        kept: Point = {}
        for axis in self.axes:
            if axis in point and self.applies(axis, kept):
                kept[axis] = point[axis]
        return {axis: kept[axis] for axis in self.spec.axes if axis in kept}

    def holds(self, point: Mapping[str, Value]) -> bool:
        """Whether the axes of a point are those that apply to it, each with one of its values."""
        whole: Point = {}
        for axis, values in self.axes.items():
            if not self.applies(axis, whole):
                continue
            if axis not in point:
                return False
            value = point[axis]
            if not (values.holds(value) if isinstance(values, Range) else value in values):
                return False
            whole[axis] = value
        return whole.keys() == point.keys()

    def at(self, shares: Sequence[float]) -> Point:
        """The point at a place of the unit cube [0, 1)^axes, whose coordinates are in the order of `axes`."""
        point: Point = {}
        for share, (axis, values) in zip(shares, self.axes.items(), strict=True):
            if self.applies(axis, point):
                point[axis] = values.at(share) if isinstance(values, Range) else values[int(share * len(values))]
        return self.reduced(point)

    def settings(self, point: Mapping[str, Value]) -> tuple[str, dict[str, Value]]:
        """The method at a point, and what the sweep sets of its experiment, by dotted path, without what neither it nor
        its kind of protection reads."""
        method, dotted = self._dotted(point)
        if self.spec.processes > 1:
            dotted["train.processes"] = self.spec.processes
        for path in unread(method, dotted) & dotted.keys():
            del dotted[path]
        return method, dotted

    def fault(self, point: Mapping[str, Value]) -> ValidationError | ValueError | None:
        """Why a point makes no sense, as a number of chosen prompts above the pool's size; None where it does."""
        method, dotted = self.settings(point)
        try:
            build_experiment(self.spec.benchmark, self.spec.model, method, self.spec.orders[0], 0, dotted)
        except (ValidationError, ValueError) as error:
            return error
        return None

    def sample(self) -> list[Point]:
        """Points that show what the axes hold: the first values of all axes with each value or end of one in turn, then
        some at random, always the same."""
        first: Point = {name: values[0] for name, values in self.spec.values().items()}
        found = [self.reduced(first)]
        for name, values in self.spec.values().items():
            # where an axis does not apply at the first values of the others, it does at those that it asks for
            found += [self.reduced({**first, **self._asked_for(name), name: value}) for value in values]
        rng = random.Random(0)
        return found + [self.at([rng.random() for _ in self.axes]) for _ in range(SAMPLED)]

    def _asked_for(self, axis: str) -> Point:
        """What the condition of an axis asks for, and the conditions of what it names."""
        found: Point = {}
        for other, values in self.spec.when.get(axis, {}).items():
            found |= {**self._asked_for(other), other: values[0]}
        return found

    @property
    def counted(self) -> bool:
        """Whether the points can be counted."""
        return all(not isinstance(axis, Range) or axis.count is not None for axis in self.axes.values())

    def points(self) -> Iterator[Point]:
        """Every point, as a grid goes through them: the last axis of the sweep file changes first. Some may stand more
        than once. Raises ValueError where they cannot be counted."""
        levels = [axis.levels() if isinstance(axis, Range) else axis for axis in self.spec.axes.values()]
        for values in itertools.product(*levels):
            yield self.reduced(dict(zip(self.spec.axes, values, strict=True)))


def asking_order(spec: SweepSpec) -> list[str]:
    """The axes, each after those on which it depends whether it applies: the method, the kind of its protection, what
    its condition names. Raises graphlib.CycleError."""
    words = {section: f"{section}.{word}" for section, (word, _) in PROTECTING.items()}
    sorter: TopologicalSorter[str] = TopologicalSorter()
    for name in spec.axes:
        needed = {"method", words.get(name.partition(".")[0], ""), *spec.when.get(name, {})} - {name}
        sorter.add(name, *(other for other in spec.axes if other in needed and name != "method"))
    return list(sorter.static_order())
