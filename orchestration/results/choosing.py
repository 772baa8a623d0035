"""What the choice of a setting is worth: judged on seeds that had no part in it.

Validation and test share the trained model, so a setting that is chosen and judged on the same trials looks better than
it is, the more so the more settings compete. Here every seed is judged with the setting that the other seeds choose.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

from pydantic import JsonValue

from orchestration.keep.tables import Row
from orchestration.results.comparisons import baseline_of, paired_values
from orchestration.results.estimates import LISTED, Design, Estimate, Unit, estimate_units
from orchestration.results.reading import finished
from orchestration.results.settings import (
    VALIDATION,
    Setting,
    SettingSummary,
    best_of,
    best_setting,
    candidates,
    rows_by_setting,
)


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
    baseline = baseline_of(best.setting, rows) if best else None
    if best is None or baseline is None or len(validation) < 2 or len(seeds_of(rows, validation)) < 2:
        return None
    held_out, times = leave_seeds_out(
        rows, validation, lambda others: best_setting(others, axes, design), metric, design
    )
    naive = estimate_units(paired_values(rows[best.setting], rows[baseline], metric), design)
    chosen = {setting: count for setting, count in times.items() if setting is not None}
    return Choice(best.setting, naive, held_out, chosen, validation)


def leave_seeds_out(
    rows: Mapping[Setting, Sequence[Row]],
    competing: Collection[Setting],
    choose: Callable[[list[Row]], SettingSummary | None],
    metric: str,
    design: Design,
) -> tuple[Estimate, dict[Setting | None, int]]:
    """Every seed left out in turn, with what `choose` takes by the rows of the others: its `metric` minus that of its
    `sequential` on the seed left out, and how often each setting is taken, None for none. rows: finished ones."""
    # who does not compete does not without a seed either, though it may be the one that it lacks
    entered = [row for setting, found in rows.items() if setting.is_reference or setting in competing for row in found]
    times: dict[Setting | None, int] = {}
    units: dict[Unit, float] = {}
    for seed in seeds_of(rows, competing):
        others = choose([row for row in entered if row["seed"] != seed])
        chosen = others.setting if others else None
        times[chosen] = times.get(chosen, 0) + 1
        against = baseline_of(chosen, rows) if chosen else None
        if chosen and against:
            mine, theirs = ([row for row in rows[one] if row["seed"] == seed] for one in (chosen, against))
            units |= paired_values(mine, theirs, metric)
    return estimate_units(units, design), times


def seeds_of(rows: Mapping[Setting, Sequence[Row]], competing: Iterable[Setting]) -> dict[JsonValue, None]:
    """The seeds of some settings, each once, in their order."""
    return {row["seed"]: None for setting in competing for row in rows[setting]}
