"""One stage: from the state that the stage before left to the state that this one leaves.

`train_stage` is a pure function of (experiment, stage, the state before), so a stage is the same whether
the earlier ones ran here or came from a store.
"""

from __future__ import annotations

import time

import torch

from mcit_core.config import Experiment, Section
from mcit_core.data.workbench import Workbench
from mcit_core.parallel import ALONE, Team
from mcit_core.protection import Groups, Protection, StageStart, StageView
from mcit_core.registry import PROTECTIONS, TUNERS
from mcit_core.stages.keys import JOINT
from mcit_core.stages.results import UNCHANGED, Measured, Trace
from mcit_core.stages.state import StageState
from mcit_core.training.batches import batches, steps_on
from mcit_core.training.step import Learner, fetched, optimizer_of, scheduler_of, train_step
from mcit_core.tuners import CountsRows, Tuner

#: at every MEASURE-th step protections measure what costs time, and the losses since the last are fetched
MEASURE = 10


def build_tuner(experiment: Experiment, bench: Workbench, state: StageState | None) -> Tuner:
    """The experiment's tuner, with the weights of `state` (None: new ones)."""
    tuner: Tuner = TUNERS.load(experiment.tuner).build(experiment, bench.model, bench.queries)
    if state is not None:
        tuner.load(state)
    return tuner


def groups_at(experiment: Experiment, bench: Workbench, stage: int) -> Groups | None:
    """The groups of tasks that share weights, as they stand in `stage`; None where all share one set."""
    if experiment.protocol != "sequence":
        return None
    seen = experiment.order[: stage + 1]
    made = (PROTECTIONS.load(name).groups(settings, bench, seen) for name, settings in experiment.protections().items())
    groups: Groups | None = next((found for found in made if found is not None), None)
    return groups


def stage_view(experiment: Experiment, bench: Workbench, stage: int, groups: Groups | None) -> StageView:
    """The stage's task, and the tasks whose stages its weights have been through, in order."""
    if experiment.protocol == "multitask":
        return StageView(experiment, bench, stage, JOINT, ())
    task = experiment.order[stage]
    earlier: tuple[str, ...] = ()
    if experiment.protocol == "sequence":
        mates = experiment.order[:stage] if groups is None else groups.members[groups.of(task)]
        earlier = tuple(other for other in mates if other != task)
    return StageView(experiment, bench, stage, task, earlier)


def protections_of(start: StageStart) -> list[Protection[Section]]:
    """The protections that do something in a stage."""
    alone = start.before is None
    return [
        PROTECTIONS.load(name)(settings, start)
        for name, settings in start.experiment.protections().items()
        if PROTECTIONS.load(name).active(start.experiment, settings, alone)
    ]


def train_stage(
    experiment: Experiment, bench: Workbench, stage: int, before: StageState | None, team: Team = ALONE
) -> tuple[StageState, Measured]:
    """Train stage `stage` from the state `before` (None: from the pre-trained model). Returns the state it leaves and
    what was measured: the same in all processes of a `team`, which call this alike. Raises FloatingPointError where the
    loss is not finite, PeerError where a process of the team is lost, RuntimeError where its processes have come to
    different states."""
    begun, begun_cpu = time.perf_counter(), time.process_time()
    torch.set_num_threads(experiment.train.threads)
    groups = groups_at(experiment, bench, stage)
    group = groups.of(experiment.order[stage]) if groups else 0
    own = before.group(group) if before else None
    source = groups.begins_from(experiment.order[stage]) if groups else 0
    weights = before.group(source) if before and source is not None else None
    tuner = build_tuner(experiment, bench, weights)
    view = stage_view(experiment, bench, stage, groups)
    start = StageStart(
        **vars(view), tuner=tuner, before=own, copy=lambda: build_tuner(experiment, bench, weights), team=team
    )
    protections = protections_of(start)
    tuner.begin_stage()
    parameters = tuner.parameters()
    began_as = {name: parameter.detach().clone() for name, parameter in parameters.items()}
    learner = Learner(bench.model, tuner, optimizer_of(tuner, experiment), experiment.train, protections, team)
    scheduler = scheduler_of(learner.optimizer, experiment.train, steps_on(experiment, bench, view.task))
    losses: list[float] = []
    fresh: list[torch.Tensor] = []
    for step, batch in enumerate(batches(experiment, bench, view.task, protections, team)):
        fresh.append(train_step(learner, *batch, measure=step % MEASURE == 0))
        scheduler.step()
        if step % MEASURE == 0:
            losses += fetched(fresh, len(losses))
            fresh = []
    losses += fetched(fresh, len(losses))
    if team.size > 1 and isinstance(tuner, CountsRows):
        counts = tuner.counted_rows()
        for count, whole in zip(counts, team.sum([count.long() for count in counts]), strict=True):
            count.copy_(whole)
    metrics = tuner.end_stage()
    traces: dict[str, Trace] = {"loss": [*losses]}
    carried: dict[str, torch.Tensor] = {}
    for protection in protections:
        protection.end()
        metrics |= protection.metrics
        traces |= protection.traces
        carried |= protection.carried
    if all(torch.equal(parameter, began_as[name]) for name, parameter in parameters.items()):
        metrics[UNCHANGED] = 1.0
    state = StageState({**tuner.state().tensors, **carried})
    last = losses[-MEASURE:]
    team.check_alike({**state.tensors, **{name: torch.tensor(value) for name, value in metrics.items()}})
    metrics |= {
        "loss/first": losses[0],
        "loss/last": sum(last) / len(last),
        "trained_parameters": float(sum(p.numel() for p in parameters.values())),
        "seconds/train": time.perf_counter() - begun,
        "seconds/train_cpu": time.process_time() - begun_cpu,
    }
    return (before or StageState()).with_group(group, state), Measured(metrics, traces)


def metrics_after(view: StageView, state: StageState) -> dict[str, float]:
    """What protections say of a stage that has left `state` to its weights. It follows from settings that a stage's key
    may leave out, so it is worked out anew for each experiment and never stored. `memory_bytes` is all that is kept for
    later stages."""
    metrics = {"memory_bytes": 0.0}
    for name, settings in view.experiment.protections().items():
        found = PROTECTIONS.load(name).after(settings, view, state)
        metrics |= {**found, "memory_bytes": metrics["memory_bytes"] + found.get("memory_bytes", 0.0)}
    return metrics
