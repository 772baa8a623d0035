"""What a stage is made from: the active fields of an experiment, and keys chained from parent to child.

Imports no torch, so that a sweep can be planned without it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from mcit_core.config import Experiment
from mcit_core.digest import digest


@dataclass(frozen=True)
class StageKey:
    """A stage's key and everything it was made from (`made_from["parent"]` is the parent's key or None)."""

    key: str
    task: str
    made_from: dict[str, Any]


def active_fields(experiment: Experiment, stage: int) -> dict[str, Any]:
    """The fields that can change the weights or the state that `stage` leaves. The order enters through the chain of
    parents; statistics are threshold-free, so thresholds count only where they bound what moves."""
    alone = experiment.protocol == "direct" or stage == 0
    pool = experiment.pool.model_dump()
    if alone or experiment.pool.reuse == "share":
        for name in ("reuse", "reuse_penalty", "claim_share"):
            pool.pop(name)
    projection = experiment.projection.model_dump()
    mode = experiment.projection.mode
    if mode == "none" or (mode == "residual" and alone):
        projection = {}
    elif mode == "pretrained":
        projection = {name: projection[name] for name in ("mode", "pretrained_energy", "center")}
    elif mode == "residual":
        projection.pop("pretrained_energy")
    if projection.get("rank_budget") == "equal":
        projection["stages"] = len(experiment.order)
    train = experiment.train.model_dump(exclude={"device"})
    return {"tuner": experiment.tuner, "seed": experiment.seed, "pool": pool, "projection": projection, "train": train}


def stage_chain(experiment: Experiment, common: dict[str, Any], data: dict[str, str]) -> list[StageKey]:
    """The keys of all stages. `common` holds what every stage depends on (model, numerics, code), `data` the digest of
    each task's training data. Direct stages have no parent; a sequence's first stage with nothing projected has the
    same key, so they share it."""
    if experiment.protocol == "zero_shot":
        return []
    chain: list[StageKey] = []
    parent: str | None = None
    for stage, task in enumerate(experiment.order):
        made_from = {
            **common,
            "parent": parent,
            "benchmark": experiment.benchmark,
            "model": experiment.model,
            "task": task,
            "data": data.get(task, ""),
            "fields": active_fields(experiment, stage),
        }
        chain.append(StageKey(digest(made_from), task, made_from))
        parent = None if experiment.protocol == "direct" else chain[-1].key
    return chain
