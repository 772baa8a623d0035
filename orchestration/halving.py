"""Successive halving at stage boundaries: after some stages only the best settings go on.

Source: Jamieson & Talwalkar, "Non-stochastic best arm identification" (AISTATS 2016), with stages as the resource. A
rung is decided once every trial that is still in the race has reached it, so that the same sweep always keeps the same
settings, whatever the workers' speed. Decided on the validation split.
"""

from __future__ import annotations

import json
from statistics import fmean
from typing import Any

from orchestration.plan import HalvingRule, SweepSpec, Trial


def score(accuracy: list[dict[str, Any]], learned: tuple[str, ...]) -> float:
    """Mean validation accuracy over the tasks learned so far, from a stage's accuracy cells."""
    return fmean(cell["accuracy"] for cell in accuracy if cell["split"] == "validation" and cell["task"] in learned)


class Halving:
    """Where each trial stands in the race. `settings`: trial -> the setting that it is a seed and an order of, in the
    order in which equal scores are kept; trials that are not in it (references) run to their end."""

    def __init__(self, rule: HalvingRule, settings: dict[str, str], stages: int) -> None:
        self.rule, self.settings = rule, settings
        self._rungs = rule.rungs(stages)
        self._racing = set(settings)  # trials that have not ended
        self._scores: dict[str, float] = {}  # at the present rung
        #: trials that do not go on -> the number of stages that they have
        self.stopped: dict[str, int] = {}

    def held(self, trial: str) -> bool:
        """Whether a trial is not to train on: it waits for the others at a rung, or it was stopped."""
        return trial in self._scores or trial in self.stopped

    def reach(self, trial: str, stages: int, value: float) -> None:
        """`trial` has finished `stages` stages, with this score."""
        if trial in self._racing and self._rungs and stages == self._rungs[0]:
            self._scores[trial] = value
            self._decide()

    def leave(self, trial: str) -> None:
        """`trial` has ended, finished or failed; what it scored at an undecided rung still counts."""
        self._racing.discard(trial)
        self._decide()

    def _decide(self) -> None:
        if not self._scores or not self._racing <= self._scores.keys():
            return
        # a dict keeps the order of the settings, so equal scores are kept in that order
        values: dict[str, list[float]] = {
            setting: [] for trial, setting in self.settings.items() if trial in self._racing
        }
        for trial, value in self._scores.items():
            if self.settings[trial] in values:
                values[self.settings[trial]].append(value)
        ranked = sorted(values, key=lambda setting: -fmean(values[setting]))
        kept = set(ranked[: self.rule.kept(len(ranked))])
        for trial in sorted(self._racing):
            if self.settings[trial] not in kept:
                self.stopped[trial] = self._rungs[0]
        self._racing -= self.stopped.keys()
        self._scores.clear()
        del self._rungs[0]


def race(spec: SweepSpec, trials: list[Trial]) -> Halving | None:
    """The race among a sweep's trials; None where its file asks for none."""
    if spec.halving is None:
        return None
    stages = len(spec.tasks)
    settings = {
        trial.id: json.dumps(trial.settings)
        for trial in trials
        if trial.method not in spec.references and trial.stages == stages  # joint training has no stage to drop it at
    }
    return Halving(spec.halving, settings, stages)
