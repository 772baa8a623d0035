"""From a sweep to its trials: axes, seeds, orders, references. Imports no torch."""

from __future__ import annotations

import itertools
from collections.abc import Collection
from dataclasses import dataclass

from mcit_core.config import UNTRAINED, Experiment, Value
from mcit_core.methods import build_experiment, protects, reference_experiment, unread
from mcit_core.registry import TUNERS, TunerPart
from mcit_core.stages.digest import digest
from orchestration.plan.spec import SweepSpec


@dataclass(frozen=True)
class Trial:
    """One experiment of a sweep. `settings` holds the swept values; a reference has None where they do not apply."""

    id: str
    experiment: Experiment
    settings: dict[str, Value]

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


def make_trials(spec: SweepSpec) -> list[Trial]:
    """All trials of a sweep, references first (the others are compared with them). An experiment stands once.
    Raises pydantic's ValidationError for a point that makes no sense."""
    points: list[Trial] = []
    references: list[Trial] = []
    for values in itertools.product(*spec.axes.values()):
        settings = dict(zip(spec.axes, values, strict=True))
        dotted = {**spec.base, **settings}
        if spec.processes > 1:
            dotted["train.processes"] = spec.processes
        method = str(dotted.pop("method", spec.method))
        # a point of another kind of protection does without what only the others read
        for path in unread(method, dotted) & dotted.keys():
            del dotted[path]
            settings |= {path: None} if path in settings else {}
        for order, seed in itertools.product(spec.orders, spec.seeds):
            experiment = build_experiment(spec.benchmark, spec.model, method, order, seed, dotted)
            points.append(_trial(experiment, settings))
            for name in spec.references:
                if name == "blind" and seed != spec.seeds[0]:
                    continue  # a floor
                reference = reference_experiment(experiment, name, spec.tasks)
                if reference == experiment.model_copy(update={"method": name}) and method != name:
                    continue  # a method that protects nothing is its own reference
                told = {path: value if applies(path, reference) else None for path, value in settings.items()}
                references.append(_trial(reference, told))
    rank = {name: i for i, name in enumerate(spec.references)}
    references.sort(key=lambda trial: rank[trial.method])
    return list({trial.id: trial for trial in references + points}.values())


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


def _trial(experiment: Experiment, settings: dict[str, Value]) -> Trial:
    return Trial(f"{experiment.method}-{digest(experiment.model_dump(mode='json'))[:10]}", experiment, settings)
