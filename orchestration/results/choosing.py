"""What the choice of a setting is worth: judged on seeds that had no part in it.

Validation and test share the trained model, so a setting that is chosen and judged on the same trials looks better than
it is, the more so the more settings compete. Here every seed is judged with the setting that the other seeds choose.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from orchestration.keep.tables import Row
from orchestration.results.comparisons import baseline_of, paired_values
from orchestration.results.estimates import LISTED, Design, Estimate, Unit, estimate_units
from orchestration.results.reading import finished
from orchestration.results.settings import VALIDATION, Setting, best_of, best_setting, candidates, rows_by_setting


@dataclass(frozen=True)
class Choice:
    """`chosen`: by all seeds. `naive`: chosen minus its `sequential` over the seeds that chose it; `held_out`: the mean
    over seeds, with each seed's value, of what the others chose, minus its sequential, on the seed left out (no
    interval: what two seeds are judged with is chosen by the same others). `times`: how many of the seeds,
    each left out in turn, would leave which setting chosen. `validation`: the figures that decided."""

    chosen: Setting
    naive: Estimate
    held_out: Estimate
    times: dict[Setting, int]
    validation: dict[Setting, Estimate]


def choice(
    trials: Sequence[Row], axes: Collection[str], design: Design = LISTED, metric: str = "average_accuracy"
) -> Choice | None:
    """None where there is nothing to choose (fewer than two finished settings or seeds, no sequential to compare with),
    and where halving has chosen already, by all seeds together."""
    if any(row["status"] == "STOPPED" for row in trials):
        return None
    competing = candidates(trials, axes, design)
    best = best_of(competing)
    validation = {summary.setting: summary.metric(VALIDATION) for summary in competing}
    rows = {setting: finished(found) for setting, found in rows_by_setting(trials, axes).items()}
    seeds = {row["seed"]: None for setting in validation for row in rows[setting]}
    baseline = baseline_of(best.setting, rows) if best else None
    if best is None or baseline is None or len(validation) < 2 or len(seeds) < 2:
        return None
    # who does not compete does not without a seed either, though it may be the one that it lacks
    entered = [row for setting, found in rows.items() if setting.is_reference or setting in validation for row in found]
    times: dict[Setting, int] = {}
    units: dict[Unit, float] = {}
    for seed in seeds:
        others = best_setting([row for row in entered if row["seed"] != seed], axes, design)
        if others is None:
            continue
        times[others.setting] = times.get(others.setting, 0) + 1
        against = baseline_of(others.setting, rows)
        if against is not None:
            mine, theirs = (
                [row for row in rows[setting] if row["seed"] == seed] for setting in (others.setting, against)
            )
            units |= paired_values(mine, theirs, metric)
    naive = estimate_units(paired_values(rows[best.setting], rows[baseline], metric), design)
    return Choice(best.setting, naive, estimate_units(units, design), times, validation)
