"""The settings of a sweep, each with the estimates of its trials."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import TypeGuard

import numpy as np
from pydantic import JsonValue

from mcit_core.methods import REFERENCES
from orchestration.keep.tables import Row, text_in
from orchestration.results.estimates import Estimate, estimate, present
from orchestration.results.reading import finished, metric_names

#: columns that are part of a setting where methods are compared
TUNER = ("tuner", "tuner_settings")
#: what tells the repetitions of a setting apart
UNIT = ("seed", "order")


@dataclass(frozen=True)
class Setting:
    """A method and its axis values; seeds and orders, its repetitions, are left out."""

    method: str
    values: tuple[tuple[str, JsonValue], ...] = ()

    @property
    def is_reference(self) -> bool:
        return self.method in REFERENCES

    def value(self, axis: str) -> JsonValue:
        return dict(self.values).get(axis)

    def matches(self, row: Row) -> bool:
        return row["method"] == self.method and all(row.get(axis) == value for axis, value in self.values)


@dataclass(frozen=True)
class SettingSummary:
    setting: Setting
    trials: int
    finished: int
    metrics: dict[str, Estimate]

    def metric(self, name: str) -> Estimate:
        return self.metrics.get(name, Estimate(None, None, None, 0))


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
    return Setting(text_in(row, "method"), tuple(values))


def estimate_rows(rows: Iterable[Row], metric: str) -> Estimate:
    """Estimate over seeds and orders: trials that share both (other axes pooled) count as one value, their mean."""
    units: dict[tuple[JsonValue, ...], list[float]] = {}
    for row in rows:
        units.setdefault(tuple(row[name] for name in UNIT), []).extend(present([row.get(metric)]))
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


def _sort_key(setting: Setting) -> tuple[int, str, list[tuple[int, float, str]]]:
    rank = 1 + REFERENCES.index(setting.method) if setting.is_reference else 0
    return rank, setting.method, [value_key(value) for _, value in setting.values]


def value_key(value: object) -> tuple[int, float, str]:
    """Sorts axis values of any kind: numbers by size, then the rest by name."""
    return (0, float(value), "") if is_number(value) else (1, 0.0, str(value))


def is_number(value: object) -> TypeGuard[int | float]:
    return isinstance(value, int | float) and not isinstance(value, bool)


def best_setting(trials: Sequence[Row], axes: Iterable[str]) -> SettingSummary | None:
    """The setting with the highest mean VALIDATION average accuracy; references do not compete."""
    found = [
        summary
        for summary in settings_summary(trials, axes)
        if not summary.setting.is_reference and summary.metric("validation/average_accuracy").mean is not None
    ]
    return max(found, key=lambda summary: summary.metric("validation/average_accuracy").mean or 0.0, default=None)
