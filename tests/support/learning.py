"""A learner in the middle of a sequence."""

from __future__ import annotations

from mcit_core.config import Experiment
from mcit_core.data.workbench import Workbench
from mcit_core.protection import StageStart
from mcit_core.training.stage import build_tuner, protections_of, stage_view, train_stage
from mcit_core.training.step import Learner, optimizer_of


def second_stage(experiment: Experiment, bench: Workbench) -> Learner:
    """At the start of the second stage, the first one trained."""
    before, _ = train_stage(experiment, bench, 0, None)
    weights = before.group(0)

    tuner = build_tuner(experiment, bench, weights)
    view = stage_view(experiment, bench, 1, None)
    start = StageStart(**vars(view), tuner=tuner, before=weights, copy=lambda: build_tuner(experiment, bench, weights))
    protections = protections_of(start)
    tuner.begin_stage()
    return Learner(bench.model, tuner, optimizer_of(tuner, experiment), experiment.train, protections)
