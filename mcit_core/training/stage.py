"""One stage: from the state that the stage before left to the state that this one leaves.

`train_stage` is a pure function of (experiment, stage, the state before), so a stage is the same whether
the earlier ones ran here or came from a store.
"""

from __future__ import annotations

import time
import warnings

import torch

from mcit_core.averaging import Averager
from mcit_core.config import Experiment
from mcit_core.data.workbench import Workbench
from mcit_core.protection.grouping import Groups
from mcit_core.protection.pegp import grown_bases, pegp_space, site_statistics
from mcit_core.protection.projection import Space, stage_space
from mcit_core.protection.regularisers import Ewc, Lwf, Regulariser
from mcit_core.registry import TUNERS
from mcit_core.stages.keys import JOINT
from mcit_core.stages.results import Measured, Trace
from mcit_core.stages.state import StageState
from mcit_core.training.batches import batches
from mcit_core.training.step import Learner, train_step
from mcit_core.tuners import Tuner

#: every MEASURE-th step measures the raw gradient's energy shares
MEASURE = 10


def build_tuner(experiment: Experiment, bench: Workbench, state: StageState | None) -> Tuner:
    tuner: Tuner = TUNERS.load(experiment.tuner).build(experiment, bench.model, bench.queries)
    if state is not None:
        tuner.load(state)
    return tuner


def groups_at(experiment: Experiment, bench: Workbench, stage: int) -> Groups | None:
    """The instruction groups as they stand in `stage`; None without grouping."""
    if not experiment.grouping.enabled or experiment.protocol != "sequence":
        return None
    seen = experiment.order[: stage + 1]
    return Groups({task: bench.rows(task, "train").instructions for task in seen}, experiment.grouping.threshold)


def task_of(experiment: Experiment, stage: int) -> str:
    return JOINT if experiment.protocol == "multitask" else experiment.order[stage]


def earlier_tasks(experiment: Experiment, stage: int, groups: Groups | None) -> list[str]:
    """The tasks whose stages the weights of this one have been through, in order."""
    if experiment.protocol != "sequence":
        return []
    task = experiment.order[stage]
    if groups is None:
        return list(experiment.order[:stage])
    return [other for other in groups.members[groups.of(task)] if other != task]


def space_of(experiment: Experiment, bench: Workbench, stage: int, groups: Groups | None = None) -> Space:
    """Where Fwd-Prompt's modes let the prompts of a stage move."""
    tasks = [*earlier_tasks(experiment, stage, groups), task_of(experiment, stage)]
    statistics = [bench.statistics(task) for task in tasks]
    return stage_space(experiment.projection, statistics, bench.statistics("pretraining"), len(experiment.order))


def protect(
    experiment: Experiment, bench: Workbench, tuner: Tuner, stage: int, own: StageState, groups: Groups | None
) -> tuple[dict[str, Space], Regulariser | None, dict[str, torch.Tensor]]:
    """What holds on to the earlier tasks while `stage` trains, `tuner` holding the weights `own` that they left: spaces
    by parameter, the loss term, and tensors to carry on. What is needed of the last task is taken here, not at that
    task's own stage, whose result then does not depend on it."""
    last = bench.rows(earlier_tasks(experiment, stage, groups)[-1], "train")
    projection, config = experiment.projection, experiment.regulariser
    spaces: dict[str, Space] = {}
    carried: dict[str, torch.Tensor] = {}
    if projection.mode == "pegp":
        if not tuner.projected:
            raise ValueError(f"projection.mode pegp: tuner {experiment.tuner} names no site to project")
        statistics = site_statistics(bench.model, tuner, last, projection.samples)
        bases = grown_bases(projection, own.tensors, statistics)
        found = {site: pegp_space(basis) for site, basis in bases.items()}
        spaces = {name: found[site] for name, site in tuner.projected.items()}
        carried |= {f"basis.{site}": basis for site, basis in bases.items()}
    regulariser: Regulariser | None = None
    if config.kind == "ewc":
        regulariser = Ewc(config, bench.model, tuner, last, own.tensors)
    elif config.kind == "lwf":
        regulariser = Lwf(config, bench.model, build_tuner(experiment, bench, own))
    return spaces, regulariser, carried | (regulariser.carried if regulariser else {})


def train_stage(
    experiment: Experiment, bench: Workbench, stage: int, before: StageState | None
) -> tuple[StageState, Measured]:
    """Train stage `stage` from the state `before` (None: from the pre-trained model). Returns the state it leaves and
    what was measured. Raises FloatingPointError where the loss is not finite."""
    start = time.perf_counter()
    torch.set_num_threads(experiment.train.threads)
    groups = groups_at(experiment, bench, stage)
    group = groups.of(experiment.order[stage]) if groups else 0
    own = before.group(group) if before else None
    tuner = build_tuner(experiment, bench, own)
    spaces: dict[str, Space] = {}
    regulariser: Regulariser | None = None
    carried: dict[str, torch.Tensor] = {}
    if own is not None:
        spaces, regulariser, carried = protect(experiment, bench, tuner, stage, own, groups)
    if experiment.projection.mode in ("residual", "pretrained", "both"):
        widths = {parameter.shape[-1] for name, parameter in tuner.parameters().items() if name in tuner.projected}
        if widths != {bench.model.width}:
            raise ValueError(
                f"projection.mode {experiment.projection.mode}: tuner {experiment.tuner} trains no rows of the model's "
                "input; use projection.mode pegp"
            )
        space = space_of(experiment, bench, stage, groups)
        if space.allowed is not None and space.allowed.shape[1] < len(space.allowed):
            spaces = dict.fromkeys(tuner.projected, space)
    _warn(experiment, stage, spaces)
    tuner.begin_stage()
    parameters = tuner.parameters()
    averaged = own is not None and experiment.averaging.kind != "none"
    learner = Learner(
        bench.model,
        tuner,
        torch.optim.Adam(tuner.groups(experiment)),
        experiment.train,
        spaces,
        Averager(experiment.averaging, parameters) if averaged else None,
        regulariser,
    )
    losses: list[float] = []
    shares: list[dict[str, float]] = []
    earlier = earlier_tasks(experiment, stage, groups)
    for step, batch in enumerate(batches(experiment, bench, task_of(experiment, stage), earlier)):
        loss, measured = train_step(learner, *batch, measure=step % MEASURE == 0)
        losses.append(loss)
        shares += [measured] if measured else []
    metrics = tuner.end_stage()
    traces: dict[str, Trace] = {"loss": [*losses]}
    if learner.averager is not None:
        metrics |= learner.averager.finish()
        traces |= {f"ema/{name}": values for name, values in learner.averager.trace.items()}
    state = StageState({**tuner.state().tensors, **carried})
    last = losses[-MEASURE:]
    metrics |= {
        "loss/first": losses[0],
        "loss/last": sum(last) / len(last),
        "trained_parameters": float(sum(p.numel() for p in parameters.values())),
    }
    for name in shares[0] if shares else ():
        metrics[f"subspace/gradient_{name}"] = sum(share[name] for share in shares) / len(shares)
    metrics["seconds/train"] = time.perf_counter() - start
    return (before or StageState()).with_group(group, state), Measured(metrics, traces)


def _warn(experiment: Experiment, stage: int, spaces: dict[str, Space]) -> None:
    used_up = [name for name, space in spaces.items() if space.exhausted]
    if used_up:
        stuck = [name for name in used_up if spaces[name].allowed is not None and not spaces[name].allowed.shape[1]]  # type: ignore[union-attr]
        what = f"{len(stuck)} tensors do not move" if stuck else "it goes on in what no stage has claimed"
        warnings.warn(
            f"stage {stage} ({experiment.order[stage]}): the space asked for is used up for {len(used_up)} of "
            f"{len(spaces)} projected tensors; {what}. Lower projection.task_energy to leave room",
            stacklevel=3,
        )


def space_metrics(experiment: Experiment, bench: Workbench, stage: int, state: StageState) -> dict[str, float]:
    """Ranks and dimensions of a stage's spaces. They follow from thresholds that a stage's key may leave out, so they
    are worked out anew for each experiment and never stored."""
    groups = groups_at(experiment, bench, stage)
    mode = experiment.projection.mode
    if mode in ("residual", "pretrained", "both"):
        space = space_of(experiment, bench, stage, groups)
        assert space.allowed is not None
        return {
            "subspace/rank": float(space.claimed.shape[1]),
            "subspace/dims_left": float(space.dims_left),
            "subspace/occupied": float(space.occupied.shape[1]),
            "subspace/exhausted": float(space.exhausted),
            "subspace/allowed": float(space.allowed.shape[1]),
            "memory_bytes": 8.0 * len(space.occupied) * (space.occupied.shape[1] + space.claimed.shape[1]),
        }
    if mode == "pegp":
        own = state.group(groups.of(experiment.order[stage]) if groups else 0)
        assert own is not None
        shapes = [tensor.shape for name, tensor in own.tensors.items() if name.startswith("basis.")]
        if shapes:
            return {
                "subspace/occupied": sum(k / d for d, k in shapes) / len(shapes),
                "subspace/frozen_sites": float(sum(d == k for d, k in shapes)),
                "subspace/sites": float(len(shapes)),
            }
    return {}
