"""What the choice of a setting is worth: judged on seeds that had no part in it.

Validation and test share the trained model, so a setting that is chosen and judged on the same trials looks better than
it is, the more so the more settings compete. Here every seed is judged with the setting that the other seeds choose.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from pydantic import JsonValue

from orchestration.keep.tables import Row
from orchestration.results.comparisons import baseline_of, paired_difference
from orchestration.results.estimates import LISTED, Design, Difference, Estimate, Unit, estimate_units
from orchestration.results.reading import finished
from orchestration.results.settings import VALIDATION, Setting, best_setting, rows_by_setting, settings_summary


@dataclass(frozen=True)
class Choice:
    """`chosen`: by all seeds. `naive`: chosen minus its `sequential` over the seeds that chose it; `held_out`: the mean
    over seeds, with each seed's value, of what the others chose, minus its sequential, on the seed left out (no
    interval: what two seeds are judged with is chosen by the same others). `times`: how many of the seeds,
    each left out in turn, would leave which setting chosen. `validation`: the figures that decided."""

    chosen: Setting
    naive: Difference
    held_out: Estimate
    times: dict[Setting, int]
    validation: dict[Setting, Estimate]


def choice(
    trials: Sequence[Row], axes: Collection[str], design: Design = LISTED, metric: str = "average_accuracy"
) -> Choice | None:
    """None where there is nothing to choose (fewer than two finished settings or seeds, no sequential to compare with),
    and where halving has chosen already, by all seeds together."""
    best = best_setting(trials, axes, design)
    rows = rows_by_setting(trials, axes)
    competing = [setting for setting in rows if not setting.is_reference and finished(rows[setting])]
    if any(row["status"] == "STOPPED" for row in trials):
        return None
    seeds = {row["seed"]: None for setting in competing for row in finished(rows[setting])}
    baseline = baseline_of(best.setting, rows) if best else None
    if best is None or baseline is None or len(competing) < 2 or len(seeds) < 2:
        return None
    times: dict[Setting, int] = {}
    units: dict[Unit, float] = {}
    for seed in seeds:
        others = best_setting([row for row in trials if row["seed"] != seed], axes, design)
        if others is None:
            continue
        times[others.setting] = times.get(others.setting, 0) + 1
        against = baseline_of(others.setting, rows)
        if against is not None:
            units |= _on_seed(rows, others.setting, against, seed, metric)
    validation = {
        summary.setting: summary.metric(VALIDATION)
        for summary in settings_summary(trials, axes, design)
        if not summary.setting.is_reference
    }
    naive = paired_difference(trials, metric, best.setting, baseline, design)
    return Choice(best.setting, naive, estimate_units(units, design), times, validation)


def _on_seed(
    rows: dict[Setting, list[Row]], setting: Setting, against: Setting, seed: JsonValue, metric: str
) -> dict[Unit, float]:
    """A setting minus another on one seed, by order."""
    here, there = (
        {row["order"]: row.get(metric) for row in finished(rows[found]) if row["seed"] == seed}
        for found in (setting, against)
    )
    found: dict[Unit, float] = {}
    for order, value in here.items():
        other = there.get(order)
        if isinstance(value, int | float) and isinstance(other, int | float):
            found[seed, order] = value - other
    return found
