"""The setting that a user's own wish picks: the best by one metric among those that keep to limits.

Accuracies are those on validation rows: what is picked on test rows looks better than it is. What the pick is worth on
test rows is judged as in `choosing`: every seed with the setting that the other seeds pick.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from mcit_core.metrics import CATALOGUE, METRICS, reason_undefined
from mcit_core.registry import near
from orchestration.keep.tables import Row
from orchestration.results.comparisons import baseline_of, paired_values
from orchestration.results.estimates import LISTED, Design, Estimate, Unit, estimate_units
from orchestration.results.reading import finished
from orchestration.results.settings import Setting, SettingSummary, candidates, rows_by_setting

#: what a sequence's own validation cells give; references have none
VALIDATED = tuple(name for name, formula in METRICS.items() if not reason_undefined(formula, 2, False, False))
#: of the model's own rows, which are no benchmark's
RETENTION = "pretrained_retention"
#: before a metric's name in trials.parquet: over validation rows
ON_VALIDATION = "validation/"


@dataclass(frozen=True)
class Limit:
    """A bound of a metric's mean, on the stored scale."""

    metric: str
    value: float
    most: bool  # or else the least

    def holds(self, summary: SettingSummary) -> bool:
        mean = summary.metric(column_of(self.metric)).mean
        assert mean is not None
        return mean <= self.value if self.most else mean >= self.value


@dataclass(frozen=True)
class Wish:
    """`objective`: a metric of the catalogue, the higher or the lower of which is better."""

    objective: str
    limits: tuple[Limit, ...] = ()

    @property
    def columns(self) -> list[str]:
        """The columns of trials.parquet that it reads."""
        return [*dict.fromkeys(map(column_of, (self.objective, *(limit.metric for limit in self.limits))))]

    def rank(self, summary: SettingSummary) -> float:
        mean = summary.metric(column_of(self.objective)).mean
        assert mean is not None
        return mean if CATALOGUE[self.objective].better == "higher" else -mean


@dataclass(frozen=True)
class Picked:
    """`kept`: those that keep to the limits, the best first, all others in `left_out`. `held_out`: test average
    accuracy minus `sequential`, of every seed that of the setting that the others pick; `times`: how many seeds, each
    left out in turn, would leave which setting picked."""

    kept: list[SettingSummary]
    left_out: list[SettingSummary]
    held_out: Estimate
    times: dict[Setting, int]


def column_of(metric: str) -> str:
    """The column that a metric is read from: on validation rows where it is one of accuracy. Raises ValueError for a
    metric that is no cost and is not measured on them."""
    known = [*VALIDATED, RETENTION, *(name for name, entry in CATALOGUE.items() if entry.unit != "percent")]
    if metric not in known:
        what = "is measured on test rows alone" if metric in CATALOGUE else "is no metric"
        raise ValueError(f"{metric} {what}; expected one of {', '.join(known)}{near(metric, known)}")
    return ON_VALIDATION + metric if metric in VALIDATED else metric


def pick(trials: Sequence[Row], axes: Collection[str], wish: Wish, design: Design = LISTED) -> Picked:
    """Raises ValueError for a metric that cannot be wished for."""
    kept, left_out = _sorted(trials, axes, wish, design)
    rows = {setting: finished(found) for setting, found in rows_by_setting(trials, axes).items()}
    seeds = dict.fromkeys(row["seed"] for summary in kept for row in rows[summary.setting])
    times: dict[Setting, int] = {}
    units: dict[Unit, float] = {}
    for seed in seeds if len(seeds) > 1 else ():
        others, _ = _sorted([row for row in trials if row["seed"] != seed], axes, wish, design)
        if not others:
            continue
        chosen = others[0].setting
        times[chosen] = times.get(chosen, 0) + 1
        against = baseline_of(chosen, rows)
        if against is not None:
            mine, theirs = ([row for row in rows[one] if row["seed"] == seed] for one in (chosen, against))
            units |= paired_values(mine, theirs, "average_accuracy")
    return Picked(kept, left_out, estimate_units(units, design), times)


def _sorted(
    trials: Sequence[Row], axes: Collection[str], wish: Wish, design: Design
) -> tuple[list[SettingSummary], list[SettingSummary]]:
    competing = candidates(trials, axes, design, wish.columns)
    kept = [summary for summary in competing if all(limit.holds(summary) for limit in wish.limits)]
    left = [summary for summary in competing if summary not in kept]
    return sorted(kept, key=wish.rank, reverse=True), left
