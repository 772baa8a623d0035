"""The settings of a sweep, each with the estimates of its trials."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeGuard

import numpy as np
from pydantic import JsonValue

from mcit_core.methods import ORDERLESS, REFERENCES
from orchestration.keep.tables import Row, text_in
from orchestration.results.estimates import LISTED, Design, Estimate, Unit, estimate_units, present
from orchestration.results.reading import finished, metric_names

#: columns that are part of a setting where methods are compared
TUNER = ("tuner", "tuner_settings")


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
    seeds: int  # of the finished trials
    metrics: dict[str, Estimate]

    def metric(self, name: str) -> Estimate:
        return self.metrics.get(name, Estimate())


def setting_axes(axes: Iterable[str]) -> list[str]:
    """The axes that tell settings apart; an order is a repetition of a setting, as a seed is."""
    return [name for name in axes if name not in ("order", "method")]


def applying_axes(trials: Iterable[Row], axes: Collection[str]) -> dict[str, list[str]]:
    """Method -> the columns that tell its settings apart. An axis that does not apply to a reference is null in all its
    rows; one that applies may be null in some, which is then a value as any other. Where methods are compared, the
    tuner and what it has other than its defaults are part of a setting, since every tuner has its own reference."""
    telling = setting_axes(axes)
    tuners = TUNER if "method" in axes and "tuner" not in axes else ()
    found: dict[str, list[str]] = {}
    there: dict[str, set[str]] = {}
    for row in trials:
        method = text_in(row, "method")
        found.setdefault(method, [])
        there.setdefault(method, set()).update(name for name in (*telling, *tuners) if row.get(name) is not None)
    for method in found:
        apply = [axis for axis in telling if method not in REFERENCES or axis in there[method]]
        found[method] = apply + [name for name in tuners if "tuner" in there[method]]
    return found


def setting_of(row: Row, applying: Mapping[str, Sequence[str]]) -> Setting:
    """The setting of a trial; `applying` is that of `applying_axes`."""
    method = text_in(row, "method")
    return Setting(method, tuple((name, row.get(name)) for name in applying[method]))


def estimate_rows(rows: Iterable[Row], metric: str, design: Design = LISTED) -> Estimate:
    """Estimate over seeds and orders: trials that share both (other axes pooled) count as one value, their mean. Where
    the order plays no part, as for most references, it is no factor."""
    units: dict[Unit, list[float]] = {}
    free = True
    for row in rows:
        free &= row["method"] in ORDERLESS
        units.setdefault((row["seed"], row["order"]), []).extend(present([row.get(metric)]))
    values = {unit: float(np.mean(found)) for unit, found in units.items() if found}
    return estimate_units(values, LISTED if free else design)


def rows_by_setting(trials: Sequence[Row], axes: Collection[str]) -> dict[Setting, list[Row]]:
    """The trials of every setting of the run, references last."""
    applying = applying_axes(trials, axes)
    groups: dict[Setting, list[Row]] = {}
    for row in trials:
        groups.setdefault(setting_of(row, applying), []).append(row)
    return dict(sorted(groups.items(), key=lambda item: _sort_key(item[0])))


def settings_summary(
    trials: Sequence[Row], axes: Iterable[str], design: Design = LISTED, metrics: Sequence[str] | None = None
) -> list[SettingSummary]:
    """Every setting of the run with the estimates of its finished trials, of all metrics or of those named; references
    last."""
    axes = list(axes)
    names = [*metric_names(trials, axes), "seconds"] if metrics is None else metrics
    summaries = []
    for setting, rows in rows_by_setting(trials, axes).items():
        done = finished(rows)
        estimates = {name: estimate_rows(done, name, design) for name in names}
        seeds = len({row["seed"] for row in done})
        summaries.append(SettingSummary(setting, len(rows), len(done), seeds, estimates))
    return summaries


def _sort_key(setting: Setting) -> tuple[int, str, list[tuple[int, float, str]]]:
    rank = 1 + REFERENCES.index(setting.method) if setting.is_reference else 0
    return rank, setting.method, [value_key(value) for _, value in setting.values]


def value_key(value: object) -> tuple[int, float, str]:
    """Sorts axis values of any kind: numbers by size, then the rest by name."""
    return (0, float(value), "") if is_number(value) else (1, 0.0, str(value))


def is_number(value: object) -> TypeGuard[int | float]:
    return isinstance(value, int | float) and not isinstance(value, bool)


VALIDATION = "validation/average_accuracy"


def best_setting(trials: Sequence[Row], axes: Collection[str], design: Design = LISTED) -> SettingSummary | None:
    """The setting with the highest mean VALIDATION average accuracy, with that estimate alone."""
    return best_of(candidates(trials, axes, design))


def best_of(found: Iterable[SettingSummary]) -> SettingSummary | None:
    """The candidate with the highest mean, of equals the first; None where there is none."""
    return max(found, key=lambda summary: summary.metric(VALIDATION).mean or 0.0, default=None)


def candidates(
    trials: Sequence[Row], axes: Collection[str], design: Design = LISTED, metrics: Sequence[str] = (VALIDATION,)
) -> list[SettingSummary]:
    """The settings that compete, each with its estimates of `metrics`, all of which it must have; references do not. A
    setting with fewer finished trials than another does not either, so that none wins because its hard seed failed;
    those with equally many are compared on the seeds and orders that all of them have, where there are any."""
    there = _validated(trials, axes, design, metrics)
    rows = rows_by_setting(finished(trials), axes)
    units = {
        summary.setting: {
            (row["seed"], row["order"])
            for row in rows[summary.setting]
            if all(row.get(name) is not None for name in metrics)
        }
        for summary in there
    }
    most = max(map(len, units.values()), default=0)
    whole = {setting: found for setting, found in units.items() if len(found) == most}
    shared = set.intersection(*whole.values()) if whole else set()
    common = [row for row in trials if (row["seed"], row["order"]) in shared]
    return [summary for summary in _validated(common, axes, design, metrics) or there if summary.setting in whole]


def _validated(
    trials: Sequence[Row], axes: Collection[str], design: Design, metrics: Sequence[str]
) -> list[SettingSummary]:
    return [
        summary
        for summary in settings_summary(trials, axes, design, metrics)
        if not summary.setting.is_reference and all(summary.metric(name).mean is not None for name in metrics)
    ]
