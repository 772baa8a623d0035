"""What a sweep left behind, read and summed up: settings, intervals, paired differences, accuracy matrices.

A missing value (None or NaN) is left out and the count n says so; NaN never enters a mean. Everything here is on the
stored scale, accuracy in [0, 1]; only `printing` multiplies by 100.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import yaml
from scipy import stats

from mcit_core.methods import PLAIN_TUNER

Row = dict[str, Any]

REFERENCES = ("zero_shot", "sequential", "direct")
TRIAL_COLUMNS = (
    "trial",
    "method",
    "tuner",
    "tuner_settings",
    "seed",
    "order",
    "status",
    "error",
    "seconds",
    "stages_trained",
    "stages_reused",
)
#: columns that are part of a setting where methods are compared
TUNER = ("tuner", "tuner_settings")
#: what tells the repetitions of a setting apart
UNIT = ("seed", "order")
CONFIDENCE = 0.95


@dataclass(frozen=True)
class Metric:
    """How a metric is named, read and printed. better: "higher", "lower" or "" (a cost, not a verdict)."""

    name: str
    title: str
    better: str
    meaning: str
    unit: str = "percent"

    @property
    def arrow(self) -> str:
        """Which way is better, to stand behind the title."""
        return {"higher": " ↑", "lower": " ↓", "": ""}[self.better]


METRICS = (
    Metric("average_accuracy", "average accuracy", "higher", "mean accuracy over all tasks after the last stage"),
    Metric(
        "learning_accuracy",
        "learning accuracy",
        "higher",
        "mean accuracy on each task right after the stage that learned it",
    ),
    Metric(
        "mean_average_accuracy",
        "mean average accuracy",
        "higher",
        "after every stage the mean over the tasks learned so far, averaged over the stages",
    ),
    Metric(
        "forgetting",
        "forgetting",
        "lower",
        "how far each earlier task fell from its best accuracy to its accuracy at the end",
    ),
    Metric(
        "backward_transfer",
        "backward transfer",
        "higher",
        "change of each earlier task between its own stage and the end; negative means it was forgotten",
    ),
    Metric(
        "forward_transfer",
        "forward transfer",
        "higher",
        "accuracy on a task just before it is learned, minus that of the untouched model (zero_shot)",
    ),
    Metric(
        "transfer_to_direct",
        "transfer to direct",
        "higher",
        "accuracy right after learning a task, minus that of learning it alone from the untouched model (direct); "
        "negative means earlier tasks hurt the learning of later ones",
    ),
    Metric(
        "intransigence",
        "intransigence",
        "lower",
        "accuracy of each task learned alone (direct), minus that right after its stage in the sequence",
    ),
    Metric(
        "content_average_accuracy",
        "content accuracy",
        "higher",
        "average accuracy when an answer that is right in content counts whatever format was asked for",
    ),
    Metric("content_forgetting", "content forgetting", "lower", "forgetting, measured on content accuracy"),
    Metric(
        "pretrained_retention",
        "pre-trained retention",
        "higher",
        "accuracy left on a held-out sample of the model's own pre-training mixture, as a share of the original",
    ),
    Metric("trained_parameters", "trained parameters", "", "number of parameters that training changes", "count"),
    Metric("memory_bytes", "kept state (MiB)", "", "size of what the last stage leaves for a next one", "mebibytes"),
)
METRIC = {metric.name: metric for metric in METRICS}
HEADLINE = ("average_accuracy", "forgetting", "forward_transfer", "transfer_to_direct")


@dataclass(frozen=True)
class Results:
    """The tables of one RUN folder. axes: name -> the values declared in the sweep file, or None if not a list."""

    folder: Path
    sweep: dict[str, Any]
    axes: dict[str, list[Any] | None]
    trials: list[Row]
    accuracy: list[Row]
    stages: list[Row]

    @property
    def finished(self) -> list[Row]:
        return finished(self.trials)

    @property
    def orders(self) -> list[str]:
        """Every order of the run, the sweep's first one first."""
        return list(dict.fromkeys(row["order"] for row in self.trials if row.get("order")))


@dataclass(frozen=True)
class Setting:
    """A method and its axis values; seeds and orders, its repetitions, are left out."""

    method: str
    values: tuple[tuple[str, Any], ...] = ()

    @property
    def is_reference(self) -> bool:
        return self.method in REFERENCES

    def value(self, axis: str) -> Any:
        return dict(self.values).get(axis)

    def matches(self, row: Row) -> bool:
        return row["method"] == self.method and all(row.get(axis) == value for axis, value in self.values)


@dataclass(frozen=True)
class Estimate:
    """Mean of n values, their standard deviation, and half the width of the 95 % t-interval (both need n > 1)."""

    mean: float | None
    spread: float | None
    half_width: float | None
    n: int


@dataclass(frozen=True)
class SettingSummary:
    setting: Setting
    trials: int
    finished: int
    metrics: dict[str, Estimate]

    def metric(self, name: str) -> Estimate:
        return self.metrics.get(name, Estimate(None, None, None, 0))


@dataclass(frozen=True)
class Difference:
    """Mean of n paired differences, its 95 % t-interval and the two-sided p-value of the paired t-test."""

    mean: float | None
    half_width: float | None
    n: int
    p: float | None

    @property
    def interval(self) -> tuple[float, float] | None:
        if self.mean is None or self.half_width is None:
            return None
        return self.mean - self.half_width, self.mean + self.half_width


@dataclass(frozen=True)
class Comparison:
    """A setting against its baseline on one metric; p_holm is corrected over the whole family it was made in."""

    setting: Setting
    baseline: Setting
    metric: str
    difference: Difference
    p_holm: float | None


@dataclass(frozen=True)
class AccuracyMatrix:
    """values[t][j]: accuracy on tasks[j] after stage t; untouched[j]: before stage 0. None where not measured."""

    tasks: list[str]
    values: list[list[float | None]]
    untouched: list[float | None]


# --- reading ---------------------------------------------------------------------------------------------------------


def read_results(run_dir: Path) -> Results:
    """Read a RUN folder; a table that is not there is empty. Raises ValueError for a damaged one."""
    run_dir = Path(run_dir)
    sweep_file = run_dir / "sweep.yaml"
    sweep = (yaml.safe_load(sweep_file.read_text(encoding="utf-8")) or {}) if sweep_file.exists() else {}
    axes = {
        str(name): values if isinstance(values, list) else None for name, values in (sweep.get("axes") or {}).items()
    }
    return Results(
        run_dir, sweep, axes, *(_read_rows(run_dir / f"{name}.parquet") for name in ("trials", "accuracy", "stages"))
    )


def _read_rows(path: Path) -> list[Row]:
    if not path.exists():
        return []
    try:
        return pq.read_table(path, page_checksum_verification=True).to_pylist()
    except (pa.ArrowException, OSError) as error:
        raise ValueError(
            f"{path} is damaged ({' '.join(str(error).split())[:200]}); "
            f"`python -m orchestration.track {path.parent}` writes it anew from the journal"
        ) from error


def finished(trials: Iterable[Row]) -> list[Row]:
    return [row for row in trials if row["status"] == "FINISHED"]


def metric_names(trials: Sequence[Row], axes: Iterable[str]) -> list[str]:
    """Names of the metric columns: everything numeric that is not an axis and describes no trial."""
    skipped = {*TRIAL_COLUMNS, *axes}
    names = dict.fromkeys(name for row in trials for name in row if name not in skipped)
    return [name for name in names if not any(isinstance(row.get(name), str | list | dict) for row in trials)]


def present(values: Iterable[Any]) -> list[float]:
    """The values that are there: neither None nor NaN nor infinite."""
    return [float(value) for value in values if value is not None and math.isfinite(value)]


# --- settings --------------------------------------------------------------------------------------------------------


def setting_axes(axes: Iterable[str]) -> list[str]:
    """The axes that tell settings apart; an order is a repetition of a setting, as a seed is."""
    return [name for name in axes if name not in ("order", "method")]


def setting_of(row: Row, axes: Collection[str]) -> Setting:
    """The setting of a trial. A reference keeps only the axes that apply to it. Where methods are compared, the tuner
    and what it has other than its defaults are part of it, since there is a reference of each kind for every tuner."""
    reference = row["method"] in REFERENCES
    values = [(axis, row.get(axis)) for axis in setting_axes(axes)]
    values = [(axis, value) for axis, value in values if not (reference and value is None)]
    if "method" in axes and "tuner" not in axes and row.get("tuner"):
        values += [(name, row.get(name)) for name in TUNER]
    return Setting(row["method"], tuple(values))


def estimate(values: Iterable[Any]) -> Estimate:
    numbers = present(values)
    if not numbers:
        return Estimate(None, None, None, 0)
    mean = float(np.mean(numbers))
    if len(numbers) == 1:
        return Estimate(mean, None, None, 1)
    spread = float(np.std(numbers, ddof=1))
    return Estimate(mean, spread, _half_width(spread, len(numbers)), len(numbers))


def _half_width(spread: float, n: int) -> float:
    return float(stats.t.ppf((1 + CONFIDENCE) / 2, n - 1)) * spread / math.sqrt(n)


def estimate_rows(rows: Iterable[Row], metric: str) -> Estimate:
    """Estimate over seeds and orders: trials that share both (other axes pooled) count as one value, their mean."""
    units: dict[tuple[Any, Any], list[float]] = {}
    for row in rows:
        units.setdefault((row["seed"], row["order"]), []).extend(present([row.get(metric)]))
    return estimate(float(np.mean(values)) for values in units.values() if values)


def settings_summary(trials: Sequence[Row], axes: Iterable[str]) -> list[SettingSummary]:
    """Every setting of the run with the estimates of its finished trials; references last."""
    axes = list(axes)
    names = metric_names(trials, axes)
    groups: dict[Setting, list[Row]] = {}
    for row in trials:
        groups.setdefault(setting_of(row, axes), []).append(row)
    summaries = []
    for setting, rows in groups.items():
        done = finished(rows)
        metrics = {name: estimate_rows(done, name) for name in [*names, "seconds"]}
        summaries.append(SettingSummary(setting, len(rows), len(done), metrics))
    return sorted(summaries, key=lambda summary: _sort_key(summary.setting))


def _sort_key(setting: Setting) -> tuple[Any, ...]:
    rank = 1 + REFERENCES.index(setting.method) if setting.is_reference else 0
    return rank, setting.method, [value_key(value) for _, value in setting.values]


def value_key(value: Any) -> tuple[int, float, str]:
    """Sorts axis values of any kind: numbers by size, then the rest by name."""
    return (0, float(value), "") if is_number(value) else (1, 0.0, str(value))


def is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def best_setting(trials: Sequence[Row], axes: Iterable[str]) -> SettingSummary | None:
    """The setting with the highest mean VALIDATION average accuracy; references do not compete."""
    found = [
        summary
        for summary in settings_summary(trials, axes)
        if not summary.setting.is_reference and summary.metric("validation/average_accuracy").mean is not None
    ]
    return max(found, key=lambda summary: summary.metric("validation/average_accuracy").mean or 0.0, default=None)


# --- paired differences ----------------------------------------------------------------------------------------------


def difference(values: Iterable[float]) -> Difference:
    """Mean, interval and p-value of differences. Without any variation p is 1 (all zero) or undefined."""
    found = estimate(values)
    if found.mean is None or found.spread is None:
        return Difference(found.mean, None, found.n, None)
    error = found.spread / math.sqrt(found.n)
    if error == 0:
        return Difference(found.mean, 0.0, found.n, 1.0 if found.mean == 0 else None)
    p = 2 * float(stats.t.sf(abs(found.mean) / error, found.n - 1))
    return Difference(found.mean, found.half_width, found.n, p)


def paired_difference(trials: Iterable[Row], metric: str, setting_a: Setting, setting_b: Setting) -> Difference:
    """setting_a minus setting_b, paired over (seed, order)."""
    done = finished(trials)
    rows_a = [row for row in done if setting_a.matches(row)]
    rows_b = [row for row in done if setting_b.matches(row)]
    return _difference_of_rows(rows_a, rows_b, metric, UNIT, UNIT)


def axis_contrast(
    trials: Iterable[Row], axes: Iterable[str], metric: str, *, axis: str, high: Any, low: Any
) -> Difference:
    """Value `high` of an axis minus value `low`, all else equal, averaged within each (seed, order) first."""
    pair = tuple(dict.fromkeys(("method", *UNIT, *(name for name in axes if name != axis))))
    rows = [row for row in finished(trials) if row["method"] not in REFERENCES]
    at_high, at_low = ([row for row in rows if row.get(axis) == value] for value in (high, low))
    return _difference_of_rows(at_high, at_low, metric, pair, UNIT)


def _difference_of_rows(
    rows_a: list[Row], rows_b: list[Row], metric: str, pair: tuple[str, ...], unit: tuple[str, ...]
) -> Difference:
    """Differences between rows that agree in the columns `pair`, averaged within each `unit` (a part of `pair`)."""
    values_b = {tuple(row[name] for name in pair): row.get(metric) for row in rows_b}
    units: dict[tuple[Any, ...], list[float]] = {}
    for row in rows_a:
        both = present([row.get(metric), values_b.get(tuple(row[name] for name in pair))])
        if len(both) == 2:
            units.setdefault(tuple(row[name] for name in unit), []).append(both[0] - both[1])
    return difference(float(np.mean(values)) for values in units.values())


def holm(p_values: Sequence[float | None]) -> list[float | None]:
    """Holm's step-down correction; undefined p-values stay undefined and do not count."""
    known = sorted((p, index) for index, p in enumerate(p_values) if p is not None)
    corrected: list[float | None] = [None] * len(p_values)
    largest = 0.0
    for position, (p, index) in enumerate(known):
        largest = max(largest, min(1.0, (len(known) - position) * p))
        corrected[index] = largest
    return corrected


def baseline_of(setting: Setting, settings: Iterable[Setting], method: str = "sequential") -> Setting | None:
    """The reference that agrees with a setting on every axis that applies to the reference."""
    own = dict(setting.values)
    if own.get("tuner") in PLAIN_TUNER:
        own["tuner"] = PLAIN_TUNER[own["tuner"]]
    agreeing = [
        other
        for other in settings
        if other.method == method and all(own.get(axis) == value for axis, value in other.values)
    ]
    return max(agreeing, key=lambda other: len(other.values), default=None)


def compare_with_sequential(
    trials: Sequence[Row], axes: Iterable[str], metrics: Sequence[str] = HEADLINE
) -> list[Comparison]:
    """Every setting against `sequential`, paired over (seed, order); Holm over all settings and metrics together."""
    settings = [summary.setting for summary in settings_summary(trials, axes)]
    found = []
    for setting in settings:
        baseline = None if setting.is_reference else baseline_of(setting, settings)
        if baseline is not None:
            found += [(setting, baseline, name, paired_difference(trials, name, setting, baseline)) for name in metrics]
    corrected = holm([difference.p for *_, difference in found])
    return [Comparison(*parts, p_holm) for parts, p_holm in zip(found, corrected, strict=True)]


# --- accuracy matrices -----------------------------------------------------------------------------------------------


def accuracy_matrix(accuracy: Iterable[Row], trial: str, split: str = "test") -> AccuracyMatrix:
    """The accuracy matrix of one trial, tasks in the order of training."""
    rows = [row for row in accuracy if row["trial"] == trial and row["split"] == split]
    tasks = rows[0]["order"].split(">") if rows else []
    cells = {(row["stage"], row["task"]): row["accuracy"] for row in rows if present([row["accuracy"]])}
    values = [[cells.get((stage, task)) for task in tasks] for stage in range(len(tasks))]
    return AccuracyMatrix(tasks, values, [cells.get((-1, task)) for task in tasks])


def mean_matrix(matrices: Sequence[AccuracyMatrix]) -> AccuracyMatrix:
    """Cell by cell the mean of the matrices that have the cell; all must have the same tasks in the same order."""
    if not matrices:
        return AccuracyMatrix([], [], [])
    tasks = matrices[0].tasks
    if any(matrix.tasks != tasks for matrix in matrices):
        raise ValueError("matrices of different orders have no common mean")
    size = range(len(tasks))
    values = [[estimate(matrix.values[t][j] for matrix in matrices).mean for j in size] for t in size]
    return AccuracyMatrix(tasks, values, [estimate(matrix.untouched[j] for matrix in matrices).mean for j in size])
