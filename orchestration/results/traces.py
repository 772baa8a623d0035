"""What training steps left, as one series through the sequence: the weight on the old average, say."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from mcit_core.stages.results import Trace
from orchestration.results.reading import damaged
from orchestration.results.resampling import Found

#: the weight on the OLD average at every step, one for all tensors or their mean
WEIGHT = "ema/weight"
#: every step has one, so that it tells how many steps a stage took
LOSS = "loss"
#: windows that a series is cut into
MOST = 400
#: stage -> name -> trace
Stages = dict[int, dict[str, Trace]]


@dataclass(frozen=True)
class Window:
    """The steps [first, last] of a sequence, counted from 0 through all stages. `mean`: of the values there; `low` and
    `high`: the smallest and the largest of them, over steps and trials alike. None where no step has a value."""

    first: int
    last: int
    mean: float | None
    low: float | None
    high: float | None


@dataclass(frozen=True)
class Series:
    """`windows` one after another, without a gap; `begins`: the first step of each stage; `trials`: how many have
    values."""

    name: str
    windows: tuple[Window, ...]
    begins: tuple[int, ...]
    trials: int


def read_traces(run_dir: Path, trials: Collection[str], name: str = WEIGHT) -> dict[str, Stages]:
    """The traces `name` and LOSS of some trials of a RUN, by trial, stage and name; nothing else of steps.parquet is
    kept in memory. Empty where there is no such file. Raises ValueError for a damaged one."""
    path = Path(run_dir) / "steps.parquet"
    if not path.exists() or not trials:
        return {}
    wanted = [("trial", "in", set(trials)), ("name", "in", {name, LOSS})]
    try:
        table = pq.read_table(path, filters=wanted, columns=["trial", "stage", "step", "name", "value"])
    except (pa.ArrowException, OSError) as error:
        raise damaged(path, error) from error
    found: dict[str, Stages] = {}
    ordered = table.sort_by([("trial", "ascending"), ("stage", "ascending"), ("step", "ascending")])
    for trial, stage, what, value in zip(
        *(ordered[column].to_pylist() for column in ("trial", "stage", "name", "value")), strict=True
    ):
        found.setdefault(trial, {}).setdefault(stage, {}).setdefault(what, []).append(value)
    return found


def trace_series(traces: Mapping[str, Stages], name: str = WEIGHT, most: int = MOST) -> Found[Series]:
    """One series of several trials' traces (seeds and orders of one setting, say), from the first step of the first
    stage to the last. Each step counts with the mean over the trials that have a value there, so that a stage without
    (the first of a weight set is not averaged) is a gap; beyond `most` steps a window holds several.

    None where no trial has a value, and where stages are of different lengths in different trials, whose steps are not
    the same. Raises ValueError for `most` below 1.
    """
    if most < 1:
        raise ValueError(f"a series has one window at least, not {most}")
    with_values = [stages for stages in traces.values() if any(_values(stages, name))]
    if not with_values:
        return Found(None, f"no trial has {name}")
    lengths = {tuple(_length(stages[stage]) for stage in sorted(stages)) for stages in with_values}
    if len(lengths) > 1:
        return Found(None, "the trials' stages take different numbers of steps")
    (steps,) = lengths
    table = np.array([_whole(stages, name) for stages in with_values])  # [trials, steps], NaN where there is none
    ends = list(accumulate(steps))
    count = min(most, ends[-1])
    cuts = [number * ends[-1] // count for number in range(count + 1)]
    windows = tuple(_window(table, first, end) for first, end in pairwise(cuts))
    return Found(Series(name, windows, (0, *ends[:-1]), len(with_values)))


def _values(stages: Stages, name: str) -> list[bool]:
    return [value is not None for traces in stages.values() for value in traces.get(name, [])]


def _length(traces: Mapping[str, Trace]) -> int:
    return max(map(len, traces.values()))


def _whole(stages: Stages, name: str) -> list[float]:
    found: list[float] = []
    for stage in sorted(stages):
        values: Sequence[float | None] = stages[stage].get(name, [])
        filled = [np.nan if value is None else value for value in values]
        found += filled + [np.nan] * (_length(stages[stage]) - len(filled))
    return found


def _window(table: np.ndarray, first: int, end: int) -> Window:
    part = table[:, first:end]
    known = ~np.isnan(part)
    if not known.any():
        return Window(first, end - 1, None, None, None)
    counts = known.sum(0)
    # steps weigh the same, however many trials have a value there
    steps = np.where(known, part, 0).sum(0)[counts > 0] / counts[counts > 0]
    return Window(first, end - 1, float(steps.mean()), float(part[known].min()), float(part[known].max()))
