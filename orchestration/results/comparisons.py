"""Settings against one another: differences paired over seed and order."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from pydantic import JsonValue

from mcit_core.methods import REFERENCES
from mcit_core.metrics import headline_names
from mcit_core.registry import plain_tuner
from orchestration.keep.tables import Row
from orchestration.results.estimates import LISTED, Design, Estimate, Unit, estimate_units, holm, present
from orchestration.results.reading import finished
from orchestration.results.settings import Setting, is_number, rows_by_setting, setting_axes, value_key


@dataclass(frozen=True)
class Comparison:
    """A setting against its baseline on one metric; p_holm is corrected over everything that was compared with it."""

    setting: Setting
    baseline: Setting
    metric: str
    difference: Estimate
    p_holm: float | None


@dataclass(frozen=True)
class Contrast:
    """Value `high` of a numeric axis against `low` on one metric, all else equal."""

    axis: str
    high: JsonValue
    low: JsonValue
    metric: str
    difference: Estimate
    p_holm: float | None


@dataclass(frozen=True)
class Compared:
    """All that a sweep lets one compare, one family for Holm's correction."""

    contrasts: list[Contrast]
    with_sequential: list[Comparison]


def paired_difference(
    trials: Iterable[Row], metric: str, setting_a: Setting, setting_b: Setting, design: Design = LISTED
) -> Estimate:
    """setting_a minus setting_b, paired over (seed, order)."""
    done = finished(trials)
    rows_a, rows_b = ([row for row in done if setting.matches(row)] for setting in (setting_a, setting_b))
    return estimate_units(paired_values(rows_a, rows_b, metric), design)


def axis_contrast(
    trials: Iterable[Row],
    axes: Iterable[str],
    metric: str,
    *,
    axis: str,
    high: JsonValue,
    low: JsonValue,
    design: Design = LISTED,
) -> Estimate:
    """Value `high` of an axis minus value `low`, all else equal, averaged within each (seed, order) first."""
    others = tuple(dict.fromkeys(("method", *(name for name in axes if name not in (axis, "order")))))
    rows = [row for row in finished(trials) if row["method"] not in REFERENCES]
    at_high, at_low = ([row for row in rows if row.get(axis) == value] for value in (high, low))
    return estimate_units(paired_values(at_high, at_low, metric, others), design)


def paired_values(
    rows_a: Iterable[Row], rows_b: Iterable[Row], metric: str, others: tuple[str, ...] = ()
) -> dict[Unit, float]:
    """(seed, order) -> a minus b, between rows that agree in the columns `others` too, averaged over those."""
    pair = ("seed", "order", *others)
    sides: list[dict[tuple[JsonValue, ...], list[float]]] = [{}, {}]
    for side, rows in zip(sides, (rows_a, rows_b), strict=True):
        for row in rows:
            side.setdefault(tuple(row[name] for name in pair), []).extend(present([row.get(metric)]))
    units: dict[Unit, list[float]] = {}
    for key, values in sides[0].items():
        other = sides[1].get(key, [])
        if values and other:
            units.setdefault((key[0], key[1]), []).append(float(np.mean(values) - np.mean(other)))
    return {unit: float(np.mean(values)) for unit, values in units.items()}


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


def numeric_ends(trials: Iterable[Row], axes: Iterable[str]) -> dict[str, tuple[JsonValue, JsonValue]]:
    """Every axis whose values under study are two numbers or more -> its lowest and its highest."""
    studied = [row for row in trials if row["method"] not in REFERENCES]
    ends = {}
    for axis in setting_axes(axes):
        values = {row.get(axis) for row in studied}
        if len(values) > 1 and all(is_number(value) for value in values):
            low, *_, high = sorted(values, key=value_key)
            ends[axis] = (low, high)
    return ends


def compare(
    trials: Sequence[Row], axes: Collection[str], design: Design = LISTED, metrics: Sequence[str] | None = None
) -> Compared:
    """Every numeric axis from its lowest value to its highest, and every setting against `sequential`, on the headline
    metrics or those given. Holm over all of it together, so that a p-value is the same wherever it stands."""
    metrics = headline_names() if metrics is None else metrics
    contrasts = [
        (axis, high, low, name, axis_contrast(trials, axes, name, axis=axis, high=high, low=low, design=design))
        for axis, (low, high) in numeric_ends(trials, axes).items()
        for name in metrics
    ]
    rows = {setting: finished(found) for setting, found in rows_by_setting(trials, axes).items()}
    pairs = [(setting, baseline_of(setting, rows)) for setting in rows if not setting.is_reference]
    comparisons = [
        (setting, baseline, name, estimate_units(paired_values(rows[setting], rows[baseline], name), design))
        for setting, baseline in pairs
        if baseline is not None
        for name in metrics
    ]
    corrected = holm([*(found[-1].p for found in contrasts), *(found[-1].p for found in comparisons)])
    return Compared(
        [Contrast(*parts, p) for parts, p in zip(contrasts, corrected, strict=False)],
        [Comparison(*parts, p) for parts, p in zip(comparisons, corrected[len(contrasts) :], strict=True)],
    )
