"""Successive halving at stage boundaries: after some stages only the best settings go on.

Source: Jamieson & Talwalkar, "Non-stochastic best arm identification" (AISTATS 2016), with stages as the resource. A
rung is decided once every trial that is still in the race has reached it, so that the same sweep always keeps the same
settings, whatever the workers' speed. Decided on the validation split.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from statistics import fmean
from typing import Protocol

from mcit_core.methods import REFERENCES
from mcit_core.stages.results import UNTOUCHED, Cell, StageResult
from orchestration.plan.spec import HalvingRule, SweepSpec
from orchestration.plan.trials import Trial


def score(accuracy: Iterable[Cell], learned: tuple[str, ...]) -> float:
    """Mean validation accuracy over the tasks learned so far, from a stage's accuracy cells; NaN where none of them is
    there, as for what does not race."""
    values = [cell.accuracy for cell in accuracy if cell.split == "validation" and cell.task in learned]
    return fmean(values) if values else math.nan


def best(scores: dict[str, float], rule: HalvingRule) -> set[str]:
    """The settings that go on, and whatever equals the last of them: settings that differ only in what protects earlier
    tasks share their first stage, and its score."""
    ranked = sorted(scores.values(), reverse=True)
    return {setting for setting, value in scores.items() if value >= ranked[rule.kept(len(ranked)) - 1]}


class Halving:
    """Where each trial stands in the race. `settings`: trial -> the setting that it is a seed and an order of; trials
    that are not in it (references) run to their end."""

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

    def reach(self, trial: str, stages: int, value: float) -> bool:
        """`trial` has finished `stages` stages, with this score. Whether that decided the rung."""
        if trial in self._racing and self._rungs and stages == self._rungs[0]:
            self._scores[trial] = value
            return self._decide()
        return False

    def leave(self, trial: str) -> bool:
        """`trial` has ended, finished or failed; what it scored at an undecided rung still counts. Whether that decided
        the rung."""
        self._racing.discard(trial)
        return self._decide()

    def _decide(self) -> bool:
        if not self._scores or not self._racing <= self._scores.keys():
            return False
        values: dict[str, list[float]] = {self.settings[trial]: [] for trial in self._racing}
        for trial in self.settings:  # in one order always: the last bit of a mean depends on it
            if trial in self._scores and self.settings[trial] in values:
                values[self.settings[trial]].append(self._scores[trial])
        kept = best({setting: fmean(scores) for setting, scores in values.items()}, self.rule)
        for trial in sorted(self._racing):
            if self.settings[trial] not in kept:
                self.stopped[trial] = self._rungs[0]
        self._racing -= self.stopped.keys()
        self._scores.clear()
        del self._rungs[0]
        return True


class Race(Protocol):
    """What the scheduler asks of a race, or of several."""

    @property
    def stopped(self) -> dict[str, int]: ...
    def held(self, trial: str) -> bool: ...
    def reach(self, trial: str, stages: int, value: float) -> bool: ...
    def leave(self, trial: str) -> bool: ...


class Races:
    """A race in every batch of a search, among its settings alone: nothing depends on which batch is ahead."""

    def __init__(self) -> None:
        self.stopped: dict[str, int] = {}
        self._of: dict[str, Race] = {}

    def add(self, trials: Iterable[str], race: Race) -> None:
        self._of |= dict.fromkeys(trials, race)

    def held(self, trial: str) -> bool:
        return trial in self._of and self._noted(trial, self._of[trial].held(trial))

    def reach(self, trial: str, stages: int, value: float) -> bool:
        return trial in self._of and self._noted(trial, self._of[trial].reach(trial, stages, value))

    def leave(self, trial: str) -> bool:
        return trial in self._of and self._noted(trial, self._of[trial].leave(trial))

    def _noted(self, trial: str, decided: bool) -> bool:
        if decided:
            self.stopped |= self._of[trial].stopped
        return decided


def run_again(trials: Sequence[Trial], race: Race, shown: Mapping[str, Sequence[StageResult]]) -> dict[str, int] | None:
    """Run a race by what its trials have shown before (the untouched model, then stages), one of each in turn. Returns
    the trials in the order of their ends, each with how much of that it came to; None where one has to go on beyond
    it, or all that are left wait for something else."""
    ended: dict[str, int] = {}
    done = {trial.id: 0 for trial in trials}
    while len(ended) < len(trials):
        moved = False
        for trial in (trial for trial in trials if trial.id not in ended):
            name, over = trial.id, False
            if not race.held(name):
                if done[name] == len(shown[name]):
                    return None
                result = shown[name][done[name]]
                done[name] += 1
                if result.stage != UNTOUCHED:
                    learned = trial.experiment.order[: result.stage + 1]
                    race.reach(name, result.stage + 1, score(result.accuracy, learned))
                moved, over = True, result.stage == trial.stages - 1
            if over or name in race.stopped:
                race.leave(name)
                ended[name] = done[name]
                moved = True
        if not moved:
            return None
    return ended


def race(spec: SweepSpec, trials: list[Trial]) -> Halving | None:
    """The race among a sweep's trials; None where its file asks for none."""
    if spec.halving is None:
        return None
    # where methods are compared, a reference's name stands for the reference
    references = REFERENCES if "method" in spec.axes else spec.references
    settings = {
        trial.id: json.dumps(trial.settings)
        for trial in trials
        if trial.experiment.protocol == "sequence" and trial.method not in references
    }
    return Halving(spec.halving, settings, len(spec.tasks))
