"""What a run of MLflow should hold, and what it held when it was last seen. Needs no MLflow."""

from __future__ import annotations

import math
import posixpath
import re
import sys
from collections import Counter
from dataclasses import dataclass, field
from typing import NamedTuple

from mcit_core.stages.digest import digest
from orchestration.tracking.server import Run

#: characters of a name
LONGEST = 250
#: a point as it compares with what a store gives back
Stored = tuple[str, int, float | str]


def mlflow_name(name: str) -> str:
    """The name of a metric, parameter or tag as MLflow takes it: with _ for what it forbids, 250 characters at most."""
    allowed = re.sub(r"[^/\w.\- :]", "_", name)
    unique = posixpath.normpath(allowed) == allowed != "." and not allowed.startswith(("/", ".."))
    if not unique:  # MLflow reads it as a path
        allowed = allowed.replace("/", "_").replace("..", "__").lstrip(".") or "_"
    if len(allowed) > LONGEST:
        allowed = f"{allowed[: LONGEST - 9]}_{digest(name)[:8]}"
    return allowed


class Point(NamedTuple):
    """A value of a metric. `at`: when, in milliseconds since 1970; None: the start of its run, plus the step."""

    name: str
    step: int
    value: float
    at: int | None = None


@dataclass(frozen=True)
class Data:
    """What a run has read, as a dataset of MLflow; `context`: what for."""

    name: str
    digest: str
    source: str
    profile: str
    context: str


@dataclass(frozen=True)
class Content:
    """What a run should hold. `tags` are refreshed by themselves; points (without their times), params and status are
    in `digest`. `begun` and `ended`, in milliseconds since 1970: None where that is not known; `exact`: whether they
    were recorded, so that a run that says something later is wrong."""

    points: list[Point]
    params: dict[str, str]
    tags: dict[str, str]
    status: str
    begun: int | None = None
    ended: int | None = None
    exact: bool = False
    data: tuple[Data, ...] = ()

    @property
    def digest(self) -> str:
        return digest([[point[:3] for point in self.points], self.params, self.status])

    def agrees(self, stored: Counter[Stored]) -> bool:
        """Whether a run that holds these points holds nothing that it should not. Of a trial that runs what a failure
        before has left at its end may be what comes again: other values alone are wrong."""
        wanted = Counter(map(as_stored, self.points))
        surplus = stored - wanted
        if self.status != "RUNNING":
            return not surplus
        lacking = {point[:2] for point in wanted - stored}
        return not any(count > 1 for count in stored.values()) and lacking.isdisjoint(point[:2] for point in surplus)


@dataclass
class Known:
    """A run as it was last seen, with what was written to it since. `points`: None until they are asked for."""

    id: str
    status: str
    begun: int
    tags: dict[str, str]
    params: dict[str, str] = field(default_factory=dict)
    metrics: set[str] = field(default_factory=set)
    data: set[tuple[str, str]] = field(default_factory=set)
    points: Counter[Stored] | None = None

    @property
    def parent(self) -> str | None:
        return self.tags.get("mlflow.parentRunId")


def known(run: Run) -> Known:
    data = {(given.dataset.name, given.dataset.digest) for given in run.inputs.dataset_inputs}
    info, held = run.info, run.data
    return Known(info.run_id, info.status, info.start_time, dict(held.tags), dict(held.params), set(held.metrics), data)


def as_stored(point: Point) -> Stored:
    """A point as it compares: NaN equals NaN, and infinity has become the largest float."""
    value = point.value
    if math.isinf(value):
        value = math.copysign(sys.float_info.max, value)
    return point.name, point.step, "nan" if math.isnan(value) else value
