"""What a search is told of a setting, from its trials: objectives on validation rows, and constraints."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from statistics import fmean
from typing import TypeVar

from orchestration.keep.records import Records
from orchestration.keep.tables import Row, number_in
from orchestration.keep.trial_record import TrialRecord, setting_state
from orchestration.plan.halving import score
from orchestration.plan.spec import RobustRule
from orchestration.search import Proposal
from orchestration.search.settings import COSTS, SearchSettings

T = TypeVar("T")
#: an order and a seed
Cell = tuple[str, int]


def outcome(
    proposal: Proposal, trials: Sequence[TrialRecord], records: Records, settings: SearchSettings, rule: RobustRule
) -> Proposal:
    """A proposal with what came out of its trials, which have all ended. One whose objective or constraint is undefined
    in any of them has failed."""
    state = setting_state(trials)
    assert state is not None, f"setting {proposal.number} has not ended"
    if state == "pruned":
        return replace(proposal, state="pruned", partial=_partial(trials))
    if state != "complete":
        return replace(proposal, state="failed")
    cells = {(one.trial.order, one.trial.experiment.seed): one for one in trials}
    return judged(proposal, cells, partial(reading, records), settings, rule)


def judged(
    proposal: Proposal,
    trials: Mapping[Cell, T],
    read: Callable[[T, str], float | None],
    settings: SearchSettings,
    rule: RobustRule,
) -> Proposal:
    """A proposal with the objectives and constraints of its finished trials, each as `read` has a metric of it."""
    found: dict[str, float] = {}
    for name in dict.fromkeys([*settings.objectives, *settings.constraints]):
        cells = {cell: read(one, name) for cell, one in trials.items()}
        known = {cell: value for cell, value in cells.items() if value is not None and math.isfinite(value)}
        if len(known) < len(cells):
            return replace(proposal, state="failed")
        # a constraint bounds from above, so that more is worse
        found[name] = robust(known, rule, settings.objectives.get(name, "minimize") == "maximize")
    return replace(
        proposal,
        state="complete",
        objectives=tuple(found[name] for name in settings.objectives),
        constraints={name: found[name] - most for name, most in settings.constraints.items()},
    )


def reading(records: Records, record: TrialRecord, name: str) -> float | None:
    """A metric of a finished trial on validation rows, or what it costs; None where it is undefined."""
    if name in COSTS:
        return record.stages[-1].metrics.get(name) if record.stages else None
    return records.metrics(record, "validation").get(name)


def reading_row(row: Row, name: str) -> float | None:
    """As `reading`, from a row of trials.parquet."""
    column = name if name in COSTS else f"validation/{name}"
    return number_in(row, column) if column in row else None


def robust(cells: Mapping[Cell, float], rule: RobustRule, more_is_better: bool) -> float:
    """One value of many: over the factors that the rule does not name the mean, then its statistic over what is left.
    cvar is the mean of the worst ceil(level * n) of n values (Rockafellar & Uryasev, 2000, for equal weights)."""
    groups: dict[tuple[str | int, ...], list[float]] = {}
    for (order, seed), value in sorted(cells.items()):
        key = tuple(part for factor, part in (("order", order), ("seed", seed)) if factor in rule.over)
        groups.setdefault(key, []).append(value)
    values = sorted((fmean(group) for group in groups.values()), reverse=not more_is_better)  # the worst first
    if rule.statistic == "mean":
        return fmean(values)
    return values[0] if rule.statistic == "worst" else fmean(values[: math.ceil(rule.level * len(values))])


def _partial(trials: Sequence[TrialRecord]) -> tuple[int, float] | None:
    """The stages that all trials of a pruned setting have, and their mean validation accuracy after them."""
    stages = min(len(record.trained) for record in trials)
    if not stages:
        return None
    scores = [
        score(record.trained[stages - 1].accuracy, record.trial.experiment.order[:stages])
        for record in trials
        if len(record.trained) >= stages
    ]
    mean = fmean(scores)
    return None if math.isnan(mean) else (stages, mean)
