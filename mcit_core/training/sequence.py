"""One sequence: its stages one after another, finished parts from a store."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from functools import partial
from typing import Protocol

import torch

from mcit_core.benchmarks import judging_of
from mcit_core.config import EvaluationSettings, Experiment, Value
from mcit_core.data.workbench import Workbench
from mcit_core.protection import Groups
from mcit_core.stages.digest import digest
from mcit_core.stages.fingerprint import stage_code, untouched_code
from mcit_core.stages.keys import StageKey, stage_chain
from mcit_core.stages.looks import RETENTION, TEST, looks, untrained_looks
from mcit_core.stages.numerics import numerics
from mcit_core.stages.results import UNTOUCHED, Cell, Evaluation, Measured, StageResult
from mcit_core.stages.state import StageState
from mcit_core.training.evaluation import evaluate_task
from mcit_core.training.majority import majority_cells
from mcit_core.training.stage import build_tuner, groups_at, metrics_after, stage_view, train_stage
from mcit_core.tuners import Tuner

#: what trains a stage: of an experiment, a workbench, the stage's number and the state before it
Trainer = Callable[[Experiment, Workbench, int, StageState | None], tuple[StageState, Measured]]


class Store(Protocol):
    """Where finished stages and evaluations are kept, by key; see `orchestration.store`."""

    def stage(
        self, key: StageKey, train: Callable[[], tuple[StageState, Measured]]
    ) -> tuple[StageState, Measured, bool]:
        """A stage's state, what was measured, and whether they were there already; `train` makes them otherwise."""

    def get_evaluation(self, key: str, stage: str | None = None) -> Evaluation | None:
        """An evaluation by its key and that of its stage (None: of the untouched model)."""

    def put_evaluation(self, key: str, evaluation: Evaluation, stage: str | None = None) -> None: ...

    def untouched(self, wanted: Mapping[str, Callable[[], Evaluation]]) -> dict[str, Evaluation]:
        """Evaluations of the untouched model by key; those that are not there are made."""


class Sequence:
    """An experiment as an iterator over its stages, the untouched model first; finished parts come from `store`. Other
    processes have a part in `trainer` alone: this one evaluates, with the bits of one process."""

    def __init__(
        self, experiment: Experiment, bench: Workbench, store: Store | None = None, trainer: Trainer = train_stage
    ) -> None:
        self.experiment, self.bench, self.store, self.trainer = experiment, bench, store, trainer
        self.common: dict[str, Value] = {
            "device": bench.model.device.type,
            "numerics": {**numerics(bench.model.device)},
            "weights": bench.model.digest,
            "sample": bench.data_digest("pretraining", "statistics"),
        }
        self.chain = stage_chain(
            experiment,
            self.common,
            {task: bench.data_digest(task) for task in experiment.order},
            lambda protections: stage_code(experiment, protections),
        )
        self._own_choices: dict[str, list[list[int]]] = {}  # task -> its test choices right after its own stage
        self._pretraining = 0.0
        self._gains: dict[str, float] = {}  # task -> what it had over the untrained tuner before its stage, in content

    def __iter__(self) -> Iterator[StageResult]:
        yield self._untouched()
        before: StageState | None = None
        for stage in range(len(self.chain)):
            before, result = self._stage(stage, before if self.experiment.protocol == "sequence" else None)
            yield result

    def follow(self) -> None:
        """Train all stages as one of the other processes of a team, which keeps and shows nothing."""
        before: StageState | None = None
        for stage in range(len(self.chain)):
            state = self._train(stage, before)[0]
            before = state if self.experiment.protocol == "sequence" else None

    def _made_from(
        self, key: StageKey | None, task: str, split: str, groups: Groups | None = None, untrained: bool = False
    ) -> dict[str, Value]:
        """All that an evaluation follows from, and its key with it."""
        judging = judging_of(self.bench.benchmark, task)
        code = untouched_code(self.experiment) if key is None else {n: key.made_from[n] for n in ("code", "libraries")}
        return {
            **self._settings(task).model_dump(exclude_defaults=True, exclude={"cells"}),
            **({"grouped": True} if groups else {}),  # which tells how the rows were sent
            **({"untrained": True} if untrained else {}),
            **({} if judging is None else {"rules": judging.rules}),
            **({"answer_tokens": judging.answer_tokens} if judging and judging.answer_tokens is not None else {}),
            **({"pictures": "grey"} if self.experiment.protocol == "blind" else {}),
            **self.common,
            **code,
            "stage": key.key if key else None,
            "benchmark": self.experiment.benchmark,
            "model": self.experiment.model,
            "task": task,
            "data": {split: self.bench.data_digest(task, split)},
            "threads": self.experiment.train.threads,
            "precision": self.experiment.train.precision,
        }

    def _settings(self, task: str) -> EvaluationSettings:
        """All rows of the model's own sample are evaluated; a benchmark may say how long a task's answers are."""
        settings, judging = self.experiment.evaluation, judging_of(self.bench.benchmark, task)
        if task == "pretraining":
            return settings.model_copy(update={"rows": None})
        if judging is not None and judging.answer_tokens is not None:
            return settings.model_copy(update={"max_new_tokens": judging.answer_tokens})
        return settings

    def _evaluation(
        self,
        key: StageKey,
        tuners: list[Tuner | None],
        task: str,
        split: str,
        groups: Groups | None = None,
        untrained: bool = False,
    ) -> Evaluation:
        """Of the state that the stage of `key` left, or with `untrained` of the tuner as that stage, the first, began
        with it."""
        made_from = self._made_from(key, task, split, groups, untrained)
        name = digest(made_from)
        found = self.store.get_evaluation(name, key.key) if self.store else None
        if found is None:
            found = self._evaluate(made_from, tuners, task, split, groups)
            if self.store:
                self.store.put_evaluation(name, found, key.key)
        return found

    def _evaluate(
        self,
        made_from: dict[str, Value],
        tuners: list[Tuner | None],
        task: str,
        split: str,
        groups: Groups | None = None,
    ) -> Evaluation:
        found = evaluate_task(self.bench, tuners, task, split, groups, self._settings(task))
        return replace(found, made_from=made_from)

    def _untouched(self) -> StageResult:
        if self.experiment.protocol == "majority":
            begun, begun_cpu = time.perf_counter(), time.process_time()
            most = self.experiment.evaluation.rows
            floors = [cell for task in self.experiment.order for cell in majority_cells(self.bench, task, most)]
            spent = {
                "seconds/evaluate": time.perf_counter() - begun,
                "seconds/evaluate_cpu": time.process_time() - begun_cpu,
            }
            return StageResult(UNTOUCHED, None, floors, spent)
        torch.set_num_threads(self.experiment.train.threads)
        made_from = {place: self._made_from(None, *place) for place in self._looks(UNTOUCHED)}
        wanted = {digest(made): partial(self._evaluate, made, [None], *place) for place, made in made_from.items()}
        found = self.store.untouched(wanted) if self.store else {name: make() for name, make in wanted.items()}
        evaluations = [found[name] for name in wanted]
        cells = [cell for evaluation in evaluations for cell in evaluation.accuracy]
        accuracy = [cell for cell in cells if (cell.task, cell.split) != RETENTION]
        metrics = _seconds(evaluations)
        if self.bench.has_sample:
            self._pretraining = cells[-1].accuracy
            metrics["pretraining_accuracy"] = self._pretraining
        return StageResult(UNTOUCHED, None, accuracy, metrics)

    def _looks(self, stage: int) -> list[tuple[str, str]]:
        """RETENTION, the last of them, only of a model that comes with rows to measure it on."""
        return [place for place in looks(self.experiment, stage) if place != RETENTION or self.bench.has_sample]

    def _train(self, stage: int, before: StageState | None) -> tuple[StageState, Measured, bool]:
        """The stage from the store, or trained; and whether it came from the store."""

        def train() -> tuple[StageState, Measured]:
            return self.trainer(self.experiment, self.bench, stage, before)

        return self.store.stage(self.chain[stage], train) if self.store else (*train(), False)

    def _stage(self, stage: int, before: StageState | None) -> tuple[StageState, StageResult]:
        key, experiment = self.chain[stage], self.experiment
        state, measured, reused = self._train(stage, before)
        groups = groups_at(experiment, self.bench, stage)
        numbers = range(len(groups.members) if groups else 1)
        tuners: list[Tuner | None] = [build_tuner(experiment, self.bench, state.group(i)) for i in numbers]
        view = stage_view(experiment, self.bench, stage, groups)
        own = state.group(groups.of(key.task) if groups else 0)
        assert own is not None
        metrics = {**measured.metrics, **metrics_after(view, own)}
        metrics["memory_bytes"] += state.bytes
        accuracy: list[Cell] = []
        evaluations: list[Evaluation] = []
        for task, split in self._looks(stage):
            evaluation = self._evaluation(key, tuners, task, split, groups)
            evaluations.append(evaluation)
            if (task, split) == RETENTION:
                if self._pretraining:
                    metrics["pretrained_retention"] = evaluation.accuracy[0].accuracy / self._pretraining
                continue
            accuracy += evaluation.accuracy
            if (task, split) in untrained_looks(experiment)[stage : stage + 1]:
                evaluations.append(self._gain(task, evaluation))
            if split == TEST:
                metrics |= self._choices(key.task, task, evaluation.chosen)
                if evaluation.distinct is not None:
                    metrics[f"distinct_answers/{task}"] = float(evaluation.distinct)
                metrics |= {f"answer_shape/{task}/{name}": share for name, share in (evaluation.shapes or {}).items()}
                if groups and evaluation.routed and task in experiment.order[: stage + 1]:
                    metrics[f"grouping/accuracy/{task}"] = evaluation.routed[groups.of(task)]
                    metrics[f"grouping/group/{task}"] = float(groups.of(task))
                    metrics |= {f"grouping/sent/{task}/{i}": share for i, share in enumerate(evaluation.routed)}
        if self._gains:
            metrics["content_forward_transfer_untrained"] = sum(self._gains.values()) / len(self._gains)
        if groups:
            metrics["grouping/groups"] = float(len(numbers))
        metrics |= _seconds(evaluations)
        return state, StageResult(stage, key.task, accuracy, metrics, measured.traces, reused)

    def _gain(self, task: str, evaluation: Evaluation) -> Evaluation:
        """Keeps what a task that is not trained yet has over the tuner before any training, in front of the model,
        which it returns the evaluation of."""
        tuner = build_tuner(self.experiment, self.bench, None)
        began = self._evaluation(self.chain[0], [tuner], task, TEST, untrained=True)
        found, before = (each.accuracy[0].content_accuracy for each in (evaluation, began))
        if found is not None and before is not None:
            self._gains[task] = found - before
        return began

    def _choices(self, own: str, task: str, chosen: list[list[int]] | None) -> dict[str, float]:
        """Pool usage by the stage's own test rows; for an earlier task, key drift: the fraction of its test rows whose
        top-K is not what it was right after the task's own stage, in one prompt or more, and the share of prompts that
        were kept."""
        if chosen is None:
            return {}
        if task == own:
            self._own_choices[task] = chosen
            flat = [part for row in chosen for part in row]
            return {f"prompt_usage/{task}/{i}": flat.count(i) / len(flat) for i in sorted(set(flat))}
        if task not in self._own_choices:
            return {}
        pairs = list(zip(chosen, self._own_choices[task], strict=True))
        kept = sum(len({*now} & {*then}) / len(then) for now, then in pairs) / len(pairs)
        return {
            f"key_drift/{task}": sum(now != then for now, then in pairs) / len(pairs),
            f"prompts_kept/{task}": kept,
        }


def _seconds(evaluations: list[Evaluation]) -> dict[str, float]:
    """What they took, by the clock and of the CPU, where that was measured for all."""
    spent = {"seconds/evaluate": sum(evaluation.seconds for evaluation in evaluations)}
    cpu = [evaluation.cpu_seconds for evaluation in evaluations if evaluation.cpu_seconds is not None]
    return {**spent, "seconds/evaluate_cpu": sum(cpu)} if len(cpu) == len(evaluations) else spent
