"""One sequence of stages: for each stage prepare, train, evaluate, record.

`train_stage` is a pure function of (experiment, stage, the state the stage before left), so a stage is the same whether
the earlier ones ran here or came from a store.
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch

from mcit_core.averaging import Averager
from mcit_core.config import Experiment
from mcit_core.digest import digest
from mcit_core.evaluation import Score, evaluate
from mcit_core.fingerprint import numerics
from mcit_core.grouping import Groups
from mcit_core.pegp import grown_bases, pegp_space, site_statistics
from mcit_core.projection import Space, stage_space
from mcit_core.registry import TUNERS
from mcit_core.regularisers import Ewc, Lwf, Regulariser
from mcit_core.replay import batches, buffer_bytes, reservoir
from mcit_core.stages import JOINT, StageKey, stage_chain
from mcit_core.state import StageState
from mcit_core.step import Learner, train_step
from mcit_core.tuners import Tuner
from mcit_core.workbench import SPLITS, Workbench

#: every MEASURE-th step measures the raw gradient's energy shares
MEASURE = 10
UNTOUCHED = -1

#: {"accuracy": rows of task, split, accuracy, content_accuracy, n; "chosen": test choices or None; "routed": share of
#: test rows that each instruction group took, or None; "seconds": float}
Evaluation = dict[str, Any]
#: {"metrics": name -> value; "traces": name -> a value per step}
Measured = dict[str, Any]


@dataclass(frozen=True)
class StageResult:
    """What a stage showed. `accuracy` rows: task, split, accuracy, content_accuracy, n. `metrics`: name -> value.
    `traces`: name -> a value per step, None where undefined. `reused` tells that its training came from the store."""

    stage: int
    task: str | None
    accuracy: list[dict[str, Any]] = field(default_factory=list)
    metrics: dict[str, float] = field(default_factory=dict)
    traces: dict[str, list[float | None]] = field(default_factory=dict)
    reused: bool = False


class Store(Protocol):
    """Where finished stages and evaluations are kept, by key; see `orchestration.store`."""

    def stage(
        self, key: StageKey, train: Callable[[], tuple[StageState, Measured]]
    ) -> tuple[StageState, Measured, bool]:
        """A stage's state, what was measured, and whether they were there already; `train` makes them otherwise."""

    def get_evaluation(self, key: str) -> Evaluation | None: ...
    def put_evaluation(self, key: str, evaluation: Evaluation) -> None: ...


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
    traces: dict[str, list[float | None]] = {"loss": [*losses]}
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
    return (before or StageState()).with_group(group, state), {"metrics": metrics, "traces": traces}


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


def evaluate_task(bench: Workbench, tuners: list[Tuner | None], task: str, groups: Groups | None = None) -> Evaluation:
    """Scores on a task's validation and test rows of `tuners`, one per instruction group (None: the untouched model);
    the instruction alone decides which group answers. Task `pretraining` is the model's own held-out sample."""
    start = time.perf_counter()
    accuracy, chosen, routed = [], None, None
    for split in ("retention",) if task == "pretraining" else SPLITS:
        rows = bench.rows(task, split)
        route = torch.zeros(len(rows), dtype=torch.long)
        if groups is not None and len(tuners) > 1:
            route = torch.tensor(groups.choose(rows.instructions))
        scores: list[Score] = []
        for number, tuner in enumerate(tuners):
            picked = (route == number).nonzero().flatten()
            if len(picked):
                scores.append(evaluate(bench.model, tuner, rows, bench.benchmark, task, picked=picked))
        accuracy.append(
            {
                "task": task,
                "split": split,
                "accuracy": sum(score.accuracy * score.n for score in scores) / len(rows),
                "content_accuracy": sum(score.content_accuracy * score.n for score in scores) / len(rows),
                "n": len(rows),
            }
        )
        one = scores[0].chosen if len(tuners) == 1 else None  # choices of different groups cannot be compared
        chosen = None if one is None else one.tolist()
        routed = torch.bincount(route, minlength=len(tuners)).div(len(rows)).tolist() if groups else None
    return {"accuracy": accuracy, "chosen": chosen, "routed": routed, "seconds": time.perf_counter() - start}


class Sequence:
    """An experiment as an iterator over its stages, the untouched model first; finished parts come from `store`."""

    def __init__(self, experiment: Experiment, bench: Workbench, store: Store | None = None) -> None:
        self.experiment, self.bench, self.store = experiment, bench, store
        self.common = {**numerics(experiment), "device": bench.model.device.type, "weights": bench.model.digest}
        self.chain = stage_chain(experiment, self.common, {task: bench.data_digest(task) for task in experiment.order})
        self._own_choices: dict[str, Any] = {}  # task -> its test choices right after its own stage
        self._pretraining = 0.0

    def __iter__(self) -> Iterator[StageResult]:
        yield self._untouched()
        before: StageState | None = None
        for stage in range(len(self.chain)):
            before, result = self._stage(stage, before if self.experiment.protocol == "sequence" else None)
            yield result

    def _evaluation(
        self, key: str | None, tuners: list[Tuner | None], task: str, groups: Groups | None = None
    ) -> Evaluation:
        data = {} if task == "pretraining" else {split: self.bench.data_digest(task, split) for split in SPLITS}
        name = digest(
            {
                **self.common,
                "stage": key,
                "task": task,
                "data": data,
                "threads": self.experiment.train.threads,
                "precision": self.experiment.train.precision,
            }
        )
        found = self.store.get_evaluation(name) if self.store else None
        if found is None:
            found = evaluate_task(self.bench, tuners, task, groups)
            if self.store:
                self.store.put_evaluation(name, found)
        return found

    def _untouched(self) -> StageResult:
        torch.set_num_threads(self.experiment.train.threads)
        evaluations = [self._evaluation(None, [None], task) for task in self.experiment.order]
        kept = self._evaluation(None, [None], "pretraining")
        self._pretraining = kept["accuracy"][0]["accuracy"]
        seconds = sum(evaluation["seconds"] for evaluation in (*evaluations, kept))
        accuracy = [row for evaluation in evaluations for row in evaluation["accuracy"]]
        metrics = {"pretraining_accuracy": self._pretraining, "seconds/evaluate": seconds}
        return StageResult(UNTOUCHED, None, accuracy, metrics)

    def _train(self, stage: int, before: StageState | None) -> tuple[StageState, Measured, bool]:
        """The stage from the store, or trained; and whether it came from the store."""

        def train() -> tuple[StageState, Measured]:
            return train_stage(self.experiment, self.bench, stage, before)

        return self.store.stage(self.chain[stage], train) if self.store else (*train(), False)

    def _stage(self, stage: int, before: StageState | None) -> tuple[StageState, StageResult]:
        key, experiment = self.chain[stage], self.experiment
        state, measured, reused = self._train(stage, before)
        groups = groups_at(experiment, self.bench, stage)
        numbers = range(len(groups.members) if groups else 1)
        tuners: list[Tuner | None] = [build_tuner(experiment, self.bench, state.group(i)) for i in numbers]
        metrics = {**measured["metrics"], **space_metrics(experiment, self.bench, stage, state)}
        metrics["memory_bytes"] = metrics.get("memory_bytes", 0.0) + state.bytes + self._buffer(stage, groups)
        accuracy: list[dict[str, Any]] = []
        evaluating = 0.0
        for task in (key.task,) if experiment.protocol == "direct" else experiment.order:
            evaluation = self._evaluation(key.key, tuners, task, groups)
            accuracy += evaluation["accuracy"]
            evaluating += evaluation["seconds"]
            metrics |= self._choices(key.task, task, evaluation["chosen"])
            if groups and evaluation["routed"] and task in experiment.order[: stage + 1]:
                metrics[f"grouping/accuracy/{task}"] = evaluation["routed"][groups.of(task)]
        if groups:
            metrics["grouping/groups"] = float(len(numbers))
        kept = self._evaluation(key.key, tuners, "pretraining", groups)
        if self._pretraining:
            metrics["pretrained_retention"] = kept["accuracy"][0]["accuracy"] / self._pretraining
        metrics["seconds/evaluate"] = evaluating + kept["seconds"]
        return state, StageResult(stage, key.task, accuracy, metrics, measured["traces"], reused)

    def _buffer(self, stage: int, groups: Groups | None) -> int:
        """Bytes of the rows that replay keeps for the next stage."""
        experiment = self.experiment
        if experiment.replay.kind == "none" or experiment.protocol != "sequence":
            return 0
        seen = [*earlier_tasks(experiment, stage, groups), experiment.order[stage]]
        sizes = {task: len(self.bench.rows(task, "train")) for task in seen}
        return buffer_bytes(self.bench, reservoir(experiment.seed, sizes, experiment.replay.rows))

    def _choices(self, own: str, task: str, chosen: list[list[int]] | None) -> dict[str, float]:
        """Pool usage by the stage's own test rows; for an earlier task, key drift: the fraction of its test rows whose
        top-K is not what it was right after the task's own stage."""
        if chosen is None:
            return {}
        if task == own:
            self._own_choices[task] = chosen
            flat = [part for row in chosen for part in row]
            return {f"prompt_usage/{task}/{i}": flat.count(i) / len(flat) for i in sorted(set(flat))}
        if task not in self._own_choices:
            return {}
        pairs = list(zip(chosen, self._own_choices[task], strict=True))
        return {f"key_drift/{task}": sum(now != then for now, then in pairs) / len(pairs)}
