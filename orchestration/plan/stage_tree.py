"""The stages that a sweep's trials share, and what they cost."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import NamedTuple

from mcit_core.config import Experiment, Value
from mcit_core.stages.keys import stage_chain, stage_steps
from mcit_core.stages.looks import RETENTION, looks, untrained_looks
from orchestration.plan.trials import Trial


@dataclass(frozen=True)
class StageTree:
    """The stages of a sweep, each once. Keys without data and code digests suffice: those are equal within a sweep."""

    chains: dict[str, list[str]]  # trial -> its stages' keys
    steps: dict[str, int]  # key -> its optimizer steps
    parents: dict[str, str | None]  # key -> the key of the stage that it goes on from
    made_from: dict[str, dict[str, Value]] = field(default_factory=dict)  # key -> what is known of it, in a plan

    def add(self, trial: Trial, made_from: bool = False) -> list[str]:
        """Take up a trial; returns the stages that are new. `made_from`: keep what they are made of, which of a large
        sweep is much."""
        chain = stage_chain(trial.experiment, {}, {})
        self.chains[trial.id] = [stage.key for stage in chain]
        new = [stage for stage in chain if stage.key not in self.steps]
        for stage in new:
            self.steps[stage.key] = stage_steps(trial.experiment)
            self.parents[stage.key] = stage.parent
            if made_from:
                self.made_from[stage.key] = stage.made_from
        return [stage.key for stage in new]


def stage_tree(trials: Iterable[Trial]) -> StageTree:
    tree = StageTree({}, {}, {})
    for trial in trials:
        tree.add(trial, made_from=True)
    return tree


class Look(NamedTuple):
    """A split of a task that is evaluated after a stage: its first `most` rows (None: all), the model's own sample in
    full; `untrained`: with the tuner as it was before the stage."""

    task: str
    split: str
    most: int | None
    untrained: bool = False


@dataclass(frozen=True)
class Costs:
    trials: int
    stages: int  # of all trials, without sharing
    steps: int  # of all those
    distinct: dict[str, int]  # stage key -> its optimizer steps, every shared beginning once
    looks: dict[str, set[Look]]  # stage key -> what is evaluated after it, what is shared once

    @property
    def evaluated(self) -> dict[str, int]:
        """Split -> how often one of a task is evaluated."""
        return Counter(look.split for looks in self.looks.values() for look in looks)


def costs(trials: list[Trial], tree: StageTree | None = None) -> Costs:
    """What trials cost in stages, steps and splits; `tree` is theirs, where it is there already."""
    tree = tree or stage_tree(trials)
    stages = [key for chain in tree.chains.values() for key in chain]
    evaluated: dict[str, set[Look]] = {key: set() for key in tree.steps}
    for trial in trials:
        chain, one = tree.chains[trial.id], trial.experiment
        for stage, key in enumerate(chain):
            evaluated[key] |= {look_at(one, *place) for place in looks(one, stage)}
        for task, split in untrained_looks(one):
            evaluated[chain[0]].add(Look(task, split, one.evaluation.rows, True))
    return Costs(len(trials), len(stages), sum(tree.steps[key] for key in stages), tree.steps, evaluated)


def look_at(experiment: Experiment, task: str, split: str) -> Look:
    return Look(task, split, None if (task, split) == RETENTION else experiment.evaluation.rows)
