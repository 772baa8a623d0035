"""The stages that a sweep's trials share, and what they cost."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

from mcit_core.stages.keys import stage_chain, stage_steps
from mcit_core.stages.looks import looks, untrained_looks
from orchestration.plan.trials import Trial


@dataclass(frozen=True)
class StageTree:
    """The stages of a sweep, each once. Keys without data and code digests suffice: those are equal within a sweep."""

    chains: dict[str, list[str]]  # trial -> its stages' keys
    steps: dict[str, int]  # key -> its optimizer steps
    parents: dict[str, str | None]  # key -> the key of the stage that it goes on from

    def add(self, trial: Trial) -> list[str]:
        """Take up a trial; returns the stages that are new."""
        chain = stage_chain(trial.experiment, {}, {})
        self.chains[trial.id] = [stage.key for stage in chain]
        new = [stage for stage in chain if stage.key not in self.steps]
        for stage in new:
            self.steps[stage.key] = stage_steps(trial.experiment)
            self.parents[stage.key] = stage.parent
        return [stage.key for stage in new]


def stage_tree(trials: Iterable[Trial]) -> StageTree:
    tree = StageTree({}, {}, {})
    for trial in trials:
        tree.add(trial)
    return tree


@dataclass(frozen=True)
class Costs:
    trials: int
    stages: int  # of all trials, without sharing
    steps: int  # of all those
    distinct: dict[str, int]  # stage key -> its optimizer steps, every shared beginning once
    evaluated: dict[str, int]  # split -> how often one of a task is evaluated, what is shared once


def costs(trials: list[Trial]) -> Costs:
    tree = stage_tree(trials)
    stages = [key for chain in tree.chains.values() for key in chain]
    evaluated: set[tuple[str, ...]] = set()
    for trial in trials:
        chain = tree.chains[trial.id]
        evaluated |= {(key, *place) for stage, key in enumerate(chain) for place in looks(trial.experiment, stage)}
        evaluated |= {(chain[0], "untrained", *place) for place in untrained_looks(trial.experiment)}
    splits = Counter(split for *_, split in evaluated)
    return Costs(len(trials), len(stages), sum(tree.steps[key] for key in stages), tree.steps, splits)
