"""Settings against one another: differences paired over seed and order."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from pydantic import JsonValue

from mcit_core.methods import REFERENCES
from mcit_core.metrics import headline_names
from mcit_core.registry import plain_tuner
from orchestration.keep.tables import Row
from orchestration.results.estimates import Difference, difference, holm, present
from orchestration.results.reading import finished
from orchestration.results.settings import UNIT, Setting, settings_summary


@dataclass(frozen=True)
class Comparison:
    """A setting against its baseline on one metric; p_holm is corrected over the whole family it was made in."""

    setting: Setting
    baseline: Setting
    metric: str
    difference: Difference
    p_holm: float | None


def paired_difference(trials: Iterable[Row], metric: str, setting_a: Setting, setting_b: Setting) -> Difference:
    """setting_a minus setting_b, paired over (seed, order)."""
    done = finished(trials)
    rows_a = [row for row in done if setting_a.matches(row)]
    rows_b = [row for row in done if setting_b.matches(row)]
    return _difference_of_rows(rows_a, rows_b, metric, UNIT, UNIT)


def axis_contrast(
    trials: Iterable[Row], axes: Iterable[str], metric: str, *, axis: str, high: JsonValue, low: JsonValue
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
    units: dict[tuple[JsonValue, ...], list[float]] = {}
    for row in rows_a:
        both = present([row.get(metric), values_b.get(tuple(row[name] for name in pair))])
        if len(both) == 2:
            units.setdefault(tuple(row[name] for name in unit), []).append(both[0] - both[1])
    return difference(float(np.mean(values)) for values in units.values())


def baseline_of(setting: Setting, settings: Iterable[Setting], method: str = "sequential") -> Setting | None:
    """The reference that agrees with a setting on every axis that applies to the reference."""
    own = dict(setting.values)
    tuner = own.get("tuner")
    if isinstance(tuner, str):
        own["tuner"] = plain_tuner(tuner)
    agreeing = [
        other
        for other in settings
        if other.method == method and all(own.get(axis) == value for axis, value in other.values)
    ]
    return max(agreeing, key=lambda other: len(other.values), default=None)


def compare_with_sequential(
    trials: Sequence[Row], axes: Iterable[str], metrics: Sequence[str] | None = None
) -> list[Comparison]:
    """Every setting against `sequential` on the headline metrics or those given, paired over (seed, order); Holm over
    all settings and metrics together."""
    metrics = headline_names() if metrics is None else metrics
    settings = [summary.setting for summary in settings_summary(trials, axes)]
    found = []
    for setting in settings:
        baseline = None if setting.is_reference else baseline_of(setting, settings)
        if baseline is not None:
            found += [(setting, baseline, name, paired_difference(trials, name, setting, baseline)) for name in metrics]
    corrected = holm([difference.p for *_, difference in found])
    return [Comparison(*parts, p_holm) for parts, p_holm in zip(found, corrected, strict=True)]
