"""One sequence of stages: for each stage prepare, train, evaluate, record.

`train_stage` is a pure function of (experiment, stage, the state the stage before left), so a stage is the same whether
the earlier ones ran here or came from a store.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch

from mcit_core.config import Experiment
from mcit_core.digest import code_fingerprint, digest
from mcit_core.evaluation import evaluate
from mcit_core.projection import Space, stage_space
from mcit_core.registry import TUNERS
from mcit_core.stages import StageKey, stage_chain
from mcit_core.state import StageState
from mcit_core.step import train_step
from mcit_core.tuners import Tuner
from mcit_core.workbench import SPLITS, Workbench, data_order

#: every MEASURE-th step measures the raw gradient's energy shares
MEASURE = 10
UNTOUCHED = -1

#: {"accuracy": rows of task, split, accuracy, content_accuracy, n; "chosen": test choices or None; "seconds": float}
Evaluation = dict[str, Any]
#: what a stage leaves, and its metrics
Trained = tuple[StageState, dict[str, float]]


@dataclass(frozen=True)
class StageResult:
    """What a stage showed. `accuracy` rows: task, split, accuracy, content_accuracy, n. `metrics`: name -> value.
    `reused` tells that its training came from the store."""

    stage: int
    task: str | None
    accuracy: list[dict[str, Any]] = field(default_factory=list)
    metrics: dict[str, float] = field(default_factory=dict)
    reused: bool = False


class Store(Protocol):
    """Where finished stages and evaluations are kept, by key; see `orchestration.store`."""

    def stage(self, key: StageKey, train: Callable[[], Trained]) -> tuple[StageState, dict[str, float], bool]:
        """A stage's state, its metrics and whether they were there already; `train` makes them where they were not."""

    def get_evaluation(self, key: str) -> Evaluation | None: ...
    def put_evaluation(self, key: str, evaluation: Evaluation) -> None: ...


def build_tuner(experiment: Experiment, bench: Workbench, state: StageState | None) -> Tuner:
    tuner: Tuner = TUNERS.load(experiment.tuner).build(experiment, bench.model, bench.queries())
    if state is not None:
        tuner.load(state)
    return tuner


def space_of(experiment: Experiment, bench: Workbench, stage: int) -> Space:
    first = stage if experiment.protocol == "direct" else 0
    tasks = [bench.statistics(task) for task in experiment.order[first : stage + 1]]
    return stage_space(experiment.projection, tasks, bench.statistics("pretraining"), len(experiment.order))


def train_stage(experiment: Experiment, bench: Workbench, stage: int, before: StageState | None) -> Trained:
    """Train stage `stage` from the state `before` (None: from the pre-trained model). Returns the state it leaves and
    its metrics. Raises FloatingPointError where the loss is not finite."""
    start = time.perf_counter()
    train, task = experiment.train, experiment.order[stage]
    torch.set_num_threads(train.threads)
    tuner = build_tuner(experiment, bench, before)
    tuner.begin_stage()
    space = space_of(experiment, bench, stage)
    optimizer = torch.optim.Adam(tuner.groups(experiment))
    rows = bench.rows(task, "train")
    losses: list[float] = []
    shares: list[dict[str, float]] = []
    for step, picked in enumerate(data_order(experiment.seed, task, len(rows), train.batch_size, train.steps)):
        index = torch.from_numpy(picked)
        loss, measured = train_step(
            bench.model,
            tuner,
            rows[index],
            rows.labels[index.to(rows.labels.device)],
            optimizer,
            space,
            train,
            measure=step % MEASURE == 0,
        )
        losses.append(loss)
        shares += [measured] if measured else []
    metrics = tuner.end_stage()
    state = tuner.state()
    last = losses[-MEASURE:]
    metrics |= {
        "loss/first": losses[0],
        "loss/last": sum(last) / len(last),
        "memory_bytes": float(state.bytes),
        "trained_parameters": float(sum(p.numel() for p in tuner.parameters().values())),
    }
    for name in shares[0] if shares else ():
        metrics[f"subspace/gradient_{name}"] = sum(share[name] for share in shares) / len(shares)
    if space.allowed is not None:
        metrics |= {
            "subspace/rank": float(space.claimed.shape[1]),
            "subspace/dims_left": float(space.dims_left),
            "subspace/occupied": float(space.occupied.shape[1]),
            "subspace/exhausted": float(space.exhausted),
            "subspace/allowed": float(space.allowed.shape[1]),
        }
    metrics["seconds/train"] = time.perf_counter() - start
    return state, metrics


def evaluate_task(bench: Workbench, tuner: Tuner | None, task: str) -> Evaluation:
    """Scores of `tuner` (None: the untouched model) on a task's validation and test rows. Task `pretraining` is the
    model's own held-out sample."""
    start = time.perf_counter()
    accuracy, chosen = [], None
    for split in ("retention",) if task == "pretraining" else SPLITS:
        score = evaluate(bench.model, tuner, bench.rows(task, split), bench.benchmark, task)
        accuracy.append(
            {
                "task": task,
                "split": split,
                "accuracy": score.accuracy,
                "content_accuracy": score.content_accuracy,
                "n": score.n,
            }
        )
        chosen = None if score.chosen is None else score.chosen.tolist()
    return {"accuracy": accuracy, "chosen": chosen, "seconds": time.perf_counter() - start}


class Sequence:
    """An experiment as an iterator over its stages, the untouched model first; finished parts come from `store`."""

    def __init__(self, experiment: Experiment, bench: Workbench, store: Store | None = None) -> None:
        self.experiment, self.bench, self.store = experiment, bench, store
        # features of a row depend on the thread count in the last bits, so it is part of the numerics
        self.common = {
            "code": code_fingerprint(),
            "torch": torch.__version__,
            "device": bench.model.device.type,
            "weights": bench.model.digest,
        }
        self.chain = stage_chain(experiment, self.common, {task: bench.data_digest(task) for task in experiment.order})
        self._own_choices: dict[str, Any] = {}  # task -> its test choices right after its own stage
        self._pretraining = 0.0

    def __iter__(self) -> Iterator[StageResult]:
        yield self._untouched()
        before: StageState | None = None
        for stage in range(len(self.chain)):
            before, result = self._stage(stage, None if self.experiment.protocol == "direct" else before)
            yield result

    def _evaluation(self, key: str | None, tuner: Tuner | None, task: str) -> Evaluation:
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
            found = evaluate_task(self.bench, tuner, task)
            if self.store:
                self.store.put_evaluation(name, found)
        return found

    def _untouched(self) -> StageResult:
        torch.set_num_threads(self.experiment.train.threads)
        evaluations = [self._evaluation(None, None, task) for task in self.experiment.order]
        kept = self._evaluation(None, None, "pretraining")
        self._pretraining = kept["accuracy"][0]["accuracy"]
        seconds = sum(evaluation["seconds"] for evaluation in (*evaluations, kept))
        accuracy = [row for evaluation in evaluations for row in evaluation["accuracy"]]
        metrics = {"pretraining_accuracy": self._pretraining, "seconds/evaluate": seconds}
        return StageResult(UNTOUCHED, None, accuracy, metrics)

    def _stage(self, stage: int, before: StageState | None) -> tuple[StageState, StageResult]:
        key = self.chain[stage]

        def train() -> Trained:
            return train_stage(self.experiment, self.bench, stage, before)

        state, metrics, reused = self.store.stage(key, train) if self.store else (*train(), False)
        tuner = build_tuner(self.experiment, self.bench, state)
        metrics = dict(metrics)
        accuracy: list[dict[str, Any]] = []
        evaluating = 0.0
        for task in (key.task,) if self.experiment.protocol == "direct" else self.experiment.order:
            evaluation = self._evaluation(key.key, tuner, task)
            accuracy += evaluation["accuracy"]
            evaluating += evaluation["seconds"]
            metrics |= self._choices(key.task, task, evaluation["chosen"])
        kept = self._evaluation(key.key, tuner, "pretraining")
        if self._pretraining:
            metrics["pretrained_retention"] = kept["accuracy"][0]["accuracy"] / self._pretraining
        metrics["seconds/evaluate"] = evaluating + kept["seconds"]
        return state, StageResult(stage, key.task, accuracy, metrics, reused=reused)

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
