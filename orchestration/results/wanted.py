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
from orchestration.results.choosing import leave_seeds_out, seeds_of
from orchestration.results.estimates import LISTED, Design, Estimate
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
        return self.excess(summary) <= 0

    def excess(self, summary: SettingSummary) -> float:
        """By how much a mean is beyond the bound, as a share of it; at most 0 where it keeps to it."""
        mean = summary.metric(column_of(self.metric)).mean
        assert mean is not None
        return (mean - self.value if self.most else self.value - mean) / (abs(self.value) or 1.0)


@dataclass(frozen=True)
class Wish:
    """`objective`: a metric of the catalogue, the higher or the lower of which is better."""

    objective: str
    limits: tuple[Limit, ...] = ()

    @property
    def columns(self) -> list[str]:
        """The columns of trials.parquet that it reads."""
        return [*dict.fromkeys(map(column_of, (self.objective, *(limit.metric for limit in self.limits))))]

    def excess(self, summary: SettingSummary) -> float:
        """By how much a setting is beyond the limits."""
        return sum(max(0.0, limit.excess(summary)) for limit in self.limits)

    def rank(self, summary: SettingSummary) -> float:
        mean = summary.metric(column_of(self.objective)).mean
        assert mean is not None
        return mean if CATALOGUE[self.objective].better == "higher" else -mean


@dataclass(frozen=True)
class Picked:
    """`kept`: those that keep to the limits, the best first, all others that compete in `left_out`; `absent`: those
    that do not compete, and why. `held_out`: test average accuracy minus `sequential`, of every seed that of the
    setting that the others pick; `times`: how many seeds, each left out in turn, would leave which setting picked, none
    where no setting keeps to the limits. `halved`: halving has chosen before, with all seeds."""

    kept: list[SettingSummary]
    left_out: list[SettingSummary]
    absent: dict[Setting, str]
    held_out: Estimate
    times: dict[Setting | None, int]
    halved: bool


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
    competing = [summary.setting for summary in (*kept, *left_out)]
    every = rows_by_setting(trials, axes)
    rows = {setting: finished(found) for setting, found in every.items()}
    absent = {
        setting: _absence(found, wish)
        for setting, found in every.items()
        if not setting.is_reference and setting not in competing
    }
    halved = any(row["status"] == "STOPPED" for row in trials)
    held_out = Estimate()
    times: dict[Setting | None, int] = {}
    if kept and len(seeds_of(rows, competing)) > 1 and len(competing) > 1 and not halved:

        def first(others: list[Row]) -> SettingSummary | None:
            return next(iter(_sorted(others, axes, wish, design)[0]), None)

        held_out, times = leave_seeds_out(rows, competing, first, "average_accuracy", design)
    return Picked(kept, left_out, absent, held_out, times, halved)


def _absence(rows: Sequence[Row], wish: Wish) -> str:
    """Why a setting does not compete."""
    done = finished(rows)
    missing = [name for name in wish.columns if all(row.get(name) is None for row in done)]
    for row in rows:
        if row["status"] == "STOPPED":
            return str(row["error"]).partition(" after ")[0]
    if not done:
        return "no finished trial"
    if missing:
        return f"without {' and '.join(missing)}"
    whole = sum(all(row.get(name) is not None for name in wish.columns) for row in done)
    return f"{whole} of its trials count, fewer than of others"


def _sorted(
    trials: Sequence[Row], axes: Collection[str], wish: Wish, design: Design
) -> tuple[list[SettingSummary], list[SettingSummary]]:
    competing = candidates(trials, axes, design, wish.columns)
    kept = [summary for summary in competing if all(limit.holds(summary) for limit in wish.limits)]
    left = [summary for summary in competing if summary not in kept]
    return sorted(kept, key=wish.rank, reverse=True), left
