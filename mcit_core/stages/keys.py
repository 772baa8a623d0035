"""What a stage is made from: the active fields of an experiment, and keys chained from parent to child.

Imports no torch, so that a sweep can be planned without it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from mcit_core.config import PROTECTING, UNTRAINED, Experiment, Value
from mcit_core.registry import PROTECTIONS, TUNER_SECTIONS, TUNERS, TunerPart
from mcit_core.stages.digest import digest

#: the task of joint training's only stage
JOINT = "multitask"
#: rows of a task, where they are not known
NOMINAL_ROWS = 1_500


@dataclass(frozen=True)
class StageKey:
    """A stage's key, that of its parent (None: it starts from the pre-trained model), and all that it was made from."""

    key: str
    task: str
    parent: str | None
    made_from: dict[str, Value]


def _idle(experiment: Experiment) -> set[str]:
    """Fields of tuners that another field's value leaves without effect."""
    idle = set()
    if experiment.pool.reuse == "share":
        idle |= {"pool.reuse_penalty", "pool.claim_share"}
    if not experiment.protects("projection.pegp"):
        idle.add("prefix.project_values")
    return idle


def tuner_fields(experiment: Experiment, alone: bool) -> dict[str, Value]:
    """The active fields of the sections that the experiment's tuner reads; `alone`: there are no earlier stages."""
    part = TUNERS.part(experiment.tuner) or TunerPart("")
    inactive = _idle(experiment) | set(part.protects if alone else ())
    fields: dict[str, Value] = {}
    for section in dict.fromkeys(path.partition(".")[0] for path in part.reads):
        values = experiment.options if section == "options" else getattr(experiment, section).model_dump()
        fields[section] = {
            name: value
            for name, value in values.items()
            if {section, f"{section}.{name}"} & set(part.reads) and f"{section}.{name}" not in inactive
        }
    return fields


def protection_fields(experiment: Experiment, alone: bool) -> dict[str, dict[str, Value]]:
    """The active fields of what protects earlier stages: name in the registry -> field -> value."""
    found: dict[str, dict[str, Value]] = {}
    for name, settings in experiment.protections().items():
        fields = PROTECTIONS.load(name).active(experiment, settings, alone)
        if fields:
            section = name.partition(".")[0]
            word = PROTECTING[section][0]
            found[name] = {**fields, word: getattr(settings, word)}  # which kind it is, whatever its fields say
    return found


def _is_alone(experiment: Experiment, stage: int) -> bool:
    return experiment.protocol != "sequence" or stage == 0


def active_fields(experiment: Experiment, stage: int) -> dict[str, Value]:
    """The fields that can change the weights or the state that `stage` leaves. The order enters through the chain of
    parents; statistics are threshold-free, so thresholds count only where they bound what moves. What protects earlier
    stages is inactive where there are none."""
    alone = _is_alone(experiment, stage)
    protecting = protection_fields(experiment, alone)
    return {
        "tuner": experiment.tuner,
        "seed": experiment.seed,
        **tuner_fields(experiment, alone),
        **{name.partition(".")[0]: {**fields} for name, fields in protecting.items()},
        "train": experiment.train.model_dump(
            exclude={"device", "epochs" if experiment.train.epochs is None else "steps"}
        ),
    }


def read_paths(experiment: Experiment) -> set[str]:
    """The settings of tuner and protections, by dotted path, that can bear on some stage of an experiment; those of
    `options` are left to the tuner."""
    if experiment.protocol in UNTRAINED:
        return set()
    part = TUNERS.part(experiment.tuner) or TunerPart("")
    sequence = experiment.protocol == "sequence"  # or else no stage has earlier tasks
    read = {
        f"{section}.{field}"
        for section in TUNER_SECTIONS
        if section != "options"
        for field in type(getattr(experiment, section)).model_fields
        if {section, f"{section}.{field}"} & set(part.reads)
    }
    read -= set(() if sequence else part.protects)
    for alone in (True, False) if sequence else (True,):
        for name, values in protection_fields(experiment, alone).items():
            read |= {f"{name.partition('.')[0]}.{field}" for field in values}
    return read - _idle(experiment)


def stage_steps(experiment: Experiment, rows: int | None = None) -> int:
    """Optimizer steps of one stage; joint training has those of the whole sequence. With train.epochs the `rows` that
    it trains on count; a plan, which does not know them (None), takes NOMINAL_ROWS a task."""
    train, tasks = experiment.train, len(experiment.order) if experiment.protocol == "multitask" else 1
    if train.epochs is None:
        return train.steps * tasks
    return math.ceil(train.epochs * (NOMINAL_ROWS * tasks if rows is None else rows) / train.batch_size)


#: of the names of the protections that do something in a stage, the code that it runs; see `fingerprint.stage_code`
StageCode = Callable[[Iterable[str]], Mapping[str, Value]]


def stage_chain(
    experiment: Experiment, common: Mapping[str, Value], data: Mapping[str, str], code: StageCode | None = None
) -> list[StageKey]:
    """The keys of all stages. `common` holds what every stage depends on (model, device), `data` the digest of each
    task's training data, `code` gives the code that a stage runs (None: left out, as in a plan). Direct stages have no
    parent; a sequence's first stage with nothing projected has the same key, so they share it. Joint training is one
    stage, whatever the order."""
    if experiment.protocol in UNTRAINED:
        return []
    chain: list[StageKey] = []
    parent: str | None = None
    joint = experiment.protocol == "multitask"
    for stage, task in enumerate((JOINT,) if joint else experiment.order):
        tasks = sorted(experiment.order) if joint else [task]
        protections = protection_fields(experiment, _is_alone(experiment, stage))
        made_from: dict[str, Value] = {
            **common,
            **(code(protections) if code else {}),
            "parent": parent,
            "benchmark": experiment.benchmark,
            "model": experiment.model,
            "task": "+".join(tasks),
            "data": "+".join(data.get(name, "") for name in tasks),
            "fields": active_fields(experiment, stage),
        }
        if experiment.protocol == "blind":
            made_from["pictures"] = "grey"
        chain.append(StageKey(digest(made_from), task, parent, made_from))
        parent = chain[-1].key if experiment.protocol == "sequence" else None
    return chain
