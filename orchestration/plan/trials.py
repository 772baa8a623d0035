"""From a sweep to its trials: axes, seeds, orders, references. Imports no torch."""

from __future__ import annotations

import itertools
import random
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass

from mcit_core.config import UNTRAINED, Experiment, Value
from mcit_core.methods import build_experiment, protects, reference_experiment
from mcit_core.registry import TUNERS, TunerPart
from mcit_core.stages.digest import digest
from orchestration.plan.space import Space
from orchestration.plan.spec import SweepSpec
from orchestration.search.registry import settings_of
from orchestration.search.settings import SearchSettings

#: draws of a setting that makes sense, for each of those that stand in for a search's
ATTEMPTS = 20


@dataclass(frozen=True)
class Trial:
    """One experiment of a sweep. `settings` holds the swept values; a reference has None where they do not apply.
    `setting`: the number of the setting that a search proposed, None for a reference and in a grid; `batch`: that of
    the search's batch which brought it."""

    id: str
    experiment: Experiment
    settings: dict[str, Value]
    setting: int | None = None
    batch: int = 0

    @property
    def method(self) -> str:
        return self.experiment.method

    @property
    def order(self) -> str:
        return ">".join(self.experiment.order)

    @property
    def stages(self) -> int:
        if self.experiment.protocol in UNTRAINED:
            return 0
        return 1 if self.experiment.protocol == "multitask" else len(self.experiment.order)


def make_trials(
    spec: SweepSpec,
    points: Iterable[Mapping[str, Value]] | None = None,
    number: int | None = None,
    batch: int = 0,
) -> list[Trial]:
    """The trials of these points of the axes, of all where none are given: references first (the others are compared
    with them). An experiment stands once. `number` and `batch`: of the setting of a search, which the points are then
    one of. Raises pydantic's ValidationError for a point that makes no sense, ValueError where points of ranges are not
    given."""
    found: list[Trial] = []
    references: list[Trial] = []
    space = Space(spec)
    for values in space.points() if points is None else points:
        settings = {axis: values.get(axis) for axis in spec.axes}
        method, dotted = space.settings(values)
        # a point of another kind of protection does without what only the others read
        settings |= {path: None for path in settings if path not in dotted and path != "method"}
        for order, seed in itertools.product(spec.orders, spec.seeds):
            experiment = build_experiment(spec.benchmark, spec.model, method, order, seed, dotted)
            found.append(_trial(experiment, settings, number, batch))
            for name in spec.references:
                if name == "blind" and seed != spec.seeds[0]:
                    continue  # a floor
                reference = reference_experiment(experiment, name, spec.tasks)
                if reference == experiment.model_copy(update={"method": name}) and method != name:
                    continue  # a method that protects nothing is its own reference
                told = {path: value if applies(path, reference) else None for path, value in settings.items()}
                references.append(_trial(reference, told, None, batch))
    rank = {name: i for i, name in enumerate(spec.references)}
    references.sort(key=lambda trial: rank[trial.method])
    return list({trial.id: trial for trial in references + found}.values())


def known_trials(spec: SweepSpec) -> list[Trial]:
    """All trials of a grid; of a search, which does not have them yet, those of a sample of its space, for what is to
    be checked beforehand."""
    if not spec.searched:
        return make_trials(spec)
    space = Space(spec)
    return make_trials(spec, [point for point in space.sample() if space.fault(point) is None])


def stand_ins(spec: SweepSpec) -> list[Trial]:
    """The trials whose cost a plan tells: all of a grid; of a search, which does not know its settings yet, those of as
    many settings at random."""
    settings = settings_of(spec.search)
    if not isinstance(settings, SearchSettings):
        return make_trials(spec)
    space, rng = Space(spec), random.Random(settings.seed)
    found: dict[str, Mapping[str, Value]] = {}
    for _ in range(ATTEMPTS * settings.trials):
        point = space.at([rng.random() for _ in space.axes])
        if space.fault(point) is None:
            found[str(point)] = point
        if len(found) == settings.trials:
            break
    return make_trials(spec, found.values())


def at_once(spec: SweepSpec, trials: list[Trial]) -> int:
    """How many trials can run side by side at most."""
    settings = settings_of(spec.search)
    if not isinstance(settings, SearchSettings):
        return len(trials)
    return min(settings.batch * (settings.lag + 1), settings.trials) * len(spec.orders) * len(spec.seeds)


def applies(path: str, reference: Experiment) -> bool:
    """Whether a swept value reaches a reference: it trains, its tuner reads it, nothing is protected by it."""
    section = path.partition(".")[0]
    if section in ("model", "benchmark", "evaluation"):
        return True
    if reference.protocol in UNTRAINED:
        return path in ("train.precision", "train.threads", "train.device")
    part = TUNERS.part(reference.tuner) or TunerPart("")
    return not protects(path) and (section in ("train", "tuner") or bool({section, path} & set(part.reads)))


def field_of(experiment: Experiment, path: str, missing: Value = None) -> Value:
    """What an experiment has at a dotted path, as YAML has it; `missing` where it has nothing there."""
    value: Value = experiment.model_dump(mode="json")
    for part in path.split("."):
        if not isinstance(value, dict) or part not in value:
            return missing
        value = value[part]
    return value


def tuner_settings(experiment: Experiment, leaving_out: Collection[str] = ()) -> str | None:
    """What an experiment's tuner has other than its defaults, "size 60, top_k 8", but for what protects earlier tasks
    and the paths in `leaving_out`; None where that is nothing. References of one tuner are told apart by it."""
    changed = []
    part = TUNERS.part(experiment.tuner) or TunerPart("")
    for section in dict.fromkeys(read.partition(".")[0] for read in part.reads):
        here, default = getattr(experiment, section), Experiment.model_fields[section].default
        values = here if section == "options" else here.model_dump()
        defaults = default if section == "options" else default.model_dump()
        for name, value in values.items():
            path = f"{section}.{name}"
            if value != defaults.get(name) and not protects(path) and path not in leaving_out:
                changed.append(f"{name} {value}")
    return ", ".join(changed) or None


def _trial(experiment: Experiment, settings: dict[str, Value], setting: int | None, batch: int) -> Trial:
    name = f"{experiment.method}-{digest(experiment.model_dump(mode='json'))[:10]}"
    return Trial(name, experiment, settings, setting, batch)
