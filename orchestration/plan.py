"""From a sweep to its trials (axes, seeds, orders), and to the stages that those trials share. Imports no torch."""

from __future__ import annotations

import itertools
import random
from collections.abc import Collection
from dataclasses import dataclass
from math import factorial
from typing import Any

from mcit_core.config import ALL_SECTIONS, TUNER_SECTIONS, Experiment
from mcit_core.digest import digest
from mcit_core.methods import PROTECTION, build_experiment, reference_experiment
from mcit_core.stages import stage_chain, stage_steps

Order = tuple[str, ...]


@dataclass(frozen=True)
class HalvingRule:
    """After `min_stages` stages, and again after `reduction` times as many each time, the best 1/`reduction` of the
    settings go on (see `orchestration.halving`)."""

    min_stages: int
    reduction: int

    def rungs(self, stages: int) -> list[int]:
        """The numbers of stages after which settings are dropped, in trials of `stages` stages."""
        found, rung = [], self.min_stages
        while rung < stages:
            found.append(rung)
            rung *= self.reduction
        return found

    def kept(self, settings: int) -> int:
        return -(-settings // self.reduction)


@dataclass(frozen=True)
class SweepSpec:
    """A checked sweep file (see `orchestration.spec`)."""

    name: str
    benchmark: str
    model: str
    method: str
    tasks: Order
    base: dict[str, Any]
    axes: dict[str, list[Any]]  # by dotted path, without `order`
    orders: tuple[Order, ...]
    order_swept: bool
    seeds: tuple[int, ...]
    references: tuple[str, ...]
    cpus: float
    gpus: float
    workers: int | None
    mlflow: str | None
    halving: HalvingRule | None = None


@dataclass(frozen=True)
class Trial:
    """One experiment of a sweep. `settings` holds the swept values; a reference has None where they do not apply."""

    id: str
    experiment: Experiment
    settings: dict[str, Any]

    @property
    def method(self) -> str:
        return self.experiment.method

    @property
    def order(self) -> str:
        return ">".join(self.experiment.order)

    @property
    def stages(self) -> int:
        return {"zero_shot": 0, "multitask": 1}.get(self.experiment.protocol, len(self.experiment.order))


def make_orders(tasks: Order, axis: dict[str, Any]) -> tuple[Order, ...]:
    """The orders of an order axis. latin_square: as many orders as tasks, each task once at each position.
    Raises ValueError where it asks for the impossible."""
    kind, n = axis["kind"], len(tasks)
    if kind == "all":
        if n > 7:
            raise ValueError(f"all orders of {n} tasks are {factorial(n)}; use kind sample, or fewer tasks")
        return tuple(itertools.permutations(tasks))
    if kind == "reverse":
        return (tasks, tasks[::-1]) if n > 1 else (tasks,)
    if kind == "latin_square":
        return tuple(tasks[i:] + tasks[:i] for i in range(n))
    if axis["n"] > factorial(n):
        raise ValueError(f"{n} tasks have only {factorial(n)} orders, {axis['n']} were asked for")
    rng, drawn = random.Random(axis.get("seed", 0)), dict[Order, None]()
    while len(drawn) < axis["n"]:
        drawn[tuple(rng.sample(tasks, n))] = None
    return tuple(drawn)


def make_trials(spec: SweepSpec) -> list[Trial]:
    """All trials of a sweep, references first (the others are compared with them). An experiment stands once.
    Raises pydantic's ValidationError for a point that makes no sense."""
    points: list[Trial] = []
    references: list[Trial] = []
    for values in itertools.product(*spec.axes.values()):
        settings = dict(zip(spec.axes, values, strict=True))
        dotted = {**spec.base, **settings}
        method = dotted.pop("method", spec.method)
        for order, seed in itertools.product(spec.orders, spec.seeds):
            experiment = build_experiment(spec.benchmark, spec.model, method, order, seed, dotted)
            points.append(_trial(experiment, settings))
            for name in spec.references:
                reference = reference_experiment(experiment, name, spec.tasks)
                if reference == experiment.model_copy(update={"method": name}) and method != name:
                    continue  # a method that protects nothing is its own reference
                applies = {path: value if _applies(path, reference) else None for path, value in settings.items()}
                references.append(_trial(reference, applies))
    rank = {name: i for i, name in enumerate(spec.references)}
    references.sort(key=lambda trial: rank[trial.method])
    return list({trial.id: trial for trial in references + points}.values())


def _applies(path: str, reference: Experiment) -> bool:
    """Whether a swept value reaches a reference: it trains, its tuner reads the section, nothing is protected by it."""
    if reference.protocol == "zero_shot":
        return False
    section = path.partition(".")[0]
    read = ("train", "tuner", *TUNER_SECTIONS.get(reference.tuner, ALL_SECTIONS))
    return section in read and path not in PROTECTION


def tuner_settings(experiment: Experiment, leaving_out: Collection[str] = ()) -> str | None:
    """What an experiment's tuner has other than its defaults, "size 60, top_k 8", but for what protects earlier tasks
    and the paths in `leaving_out`; None where that is nothing. References of one tuner are told apart by it."""
    changed = []
    for section in TUNER_SECTIONS.get(experiment.tuner, ALL_SECTIONS):
        here, default = getattr(experiment, section), Experiment.model_fields[section].default
        values = here if section == "options" else here.model_dump()
        defaults = default if section == "options" else default.model_dump()
        for name, value in values.items():
            path = f"{section}.{name}"
            if value != defaults.get(name) and path not in PROTECTION and path not in leaving_out:
                changed.append(f"{name} {value}")
    return ", ".join(changed) or None


def _trial(experiment: Experiment, settings: dict[str, Any]) -> Trial:
    return Trial(f"{experiment.method}-{digest(experiment.model_dump(mode='json'))[:10]}", experiment, settings)


@dataclass(frozen=True)
class StageTree:
    """The stages of a sweep, each once. Keys without data and code digests suffice: those are equal within a sweep."""

    chains: dict[str, list[str]]  # trial -> its stages' keys
    steps: dict[str, int]  # key -> its optimizer steps
    parents: dict[str, str | None]  # key -> the key of the stage that it goes on from


def stage_tree(trials: list[Trial]) -> StageTree:
    tree = StageTree({}, {}, {})
    for trial in trials:
        chain = stage_chain(trial.experiment, {}, {})
        tree.chains[trial.id] = [stage.key for stage in chain]
        for stage in chain:
            tree.steps[stage.key] = stage_steps(trial.experiment)
            tree.parents[stage.key] = stage.made_from["parent"]
    return tree


@dataclass(frozen=True)
class Costs:
    trials: int
    stages: int  # of all trials, without sharing
    steps: int  # of all those
    distinct: dict[str, int]  # stage key -> its optimizer steps, every shared beginning once


def costs(trials: list[Trial]) -> Costs:
    tree = stage_tree(trials)
    stages = [key for chain in tree.chains.values() for key in chain]
    return Costs(len(trials), len(stages), sum(tree.steps[key] for key in stages), tree.steps)
