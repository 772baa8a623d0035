"""What a stage is made from: the active fields of an experiment, and keys chained from parent to child.

Imports no torch, so that a sweep can be planned without it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from mcit_core.config import ALL_SECTIONS, Experiment
from mcit_core.registry import TUNER_SECTIONS
from mcit_core.stages.digest import digest

#: the task of joint training's only stage
JOINT = "multitask"


@dataclass(frozen=True)
class StageKey:
    """A stage's key and everything it was made from (`made_from["parent"]` is the parent's key or None)."""

    key: str
    task: str
    made_from: dict[str, Any]


def tuner_fields(experiment: Experiment, alone: bool) -> dict[str, Any]:
    """The active fields of the sections that the experiment's tuner reads."""
    fields = {
        name: getattr(experiment, name).model_dump() if name != "options" else dict(experiment.options)
        for name in TUNER_SECTIONS.get(experiment.tuner, ALL_SECTIONS)
    }
    if "pool" in fields and (alone or experiment.pool.reuse == "share"):
        for name in ("reuse", "reuse_penalty", "claim_share"):
            fields["pool"].pop(name)
    if experiment.tuner == "lora" or (experiment.tuner == "o_lora" and alone):
        fields["lora"].pop("orthogonality")
    if "prefix" in fields and (alone or experiment.projection.mode != "pegp"):
        fields["prefix"].pop("project_values")
    return fields


def projection_fields(experiment: Experiment, alone: bool) -> dict[str, Any]:
    fields = experiment.projection.model_dump()
    mode = experiment.projection.mode
    if mode == "none" or (mode in ("residual", "pegp") and alone):
        return {}
    if mode == "pretrained":
        return {name: fields[name] for name in ("mode", "pretrained_energy", "center")}
    if mode == "pegp":
        return {name: fields[name] for name in ("mode", "task_energy", "energy_of", "center", "samples")}
    fields.pop("samples")
    if mode == "residual":
        fields.pop("pretrained_energy")
    if fields["rank_budget"] == "equal":
        fields["stages"] = len(experiment.order)
    return fields


#: section -> kind -> the fields that matter beside `kind`; all of them protect earlier stages, so none matters alone
KIND_FIELDS: dict[str, dict[str, tuple[str, ...]]] = {
    "averaging": {"fixed": ("weight",), "taylor": ("outside",), "per_tensor": ()},
    "replay": {"reservoir": ("rows", "batch_share")},
    "regulariser": {"ewc": ("strength", "samples"), "lwf": ("strength", "temperature")},
}


def active_fields(experiment: Experiment, stage: int) -> dict[str, Any]:
    """The fields that can change the weights or the state that `stage` leaves. The order enters through the chain of
    parents; statistics are threshold-free, so thresholds count only where they bound what moves. What protects earlier
    stages is inactive where there are none."""
    alone = experiment.protocol != "sequence" or stage == 0
    active: dict[str, Any] = {
        "tuner": experiment.tuner,
        "seed": experiment.seed,
        **tuner_fields(experiment, alone),
        "projection": projection_fields(experiment, alone),
        "train": experiment.train.model_dump(exclude={"device"}),
    }
    if not alone:
        for name, kinds in KIND_FIELDS.items():
            section = getattr(experiment, name)
            if section.kind != "none":
                active[name] = {"kind": section.kind, **{f: getattr(section, f) for f in kinds[section.kind]}}
        if experiment.grouping.enabled:
            active["grouping"] = experiment.grouping.threshold
    return active


def stage_steps(experiment: Experiment) -> int:
    """Optimizer steps of one stage; joint training has those of the whole sequence."""
    return experiment.train.steps * (len(experiment.order) if experiment.protocol == "multitask" else 1)


def stage_chain(experiment: Experiment, common: dict[str, Any], data: dict[str, str]) -> list[StageKey]:
    """The keys of all stages. `common` holds what every stage depends on (model, numerics, code), `data` the digest of
    each task's training data. Direct stages have no parent; a sequence's first stage with nothing projected has the
    same key, so they share it. Joint training is one stage, whatever the order."""
    if experiment.protocol == "zero_shot":
        return []
    chain: list[StageKey] = []
    parent: str | None = None
    joint = experiment.protocol == "multitask"
    for stage, task in enumerate((JOINT,) if joint else experiment.order):
        tasks = sorted(experiment.order) if joint else [task]
        made_from = {
            **common,
            "parent": parent,
            "benchmark": experiment.benchmark,
            "model": experiment.model,
            "task": "+".join(tasks),
            "data": "+".join(data.get(name, "") for name in tasks),
            "fields": active_fields(experiment, stage),
        }
        chain.append(StageKey(digest(made_from), task, made_from))
        parent = chain[-1].key if experiment.protocol == "sequence" else None
    return chain
