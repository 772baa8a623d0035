"""A few real steps and rows, where nothing that is stored tells what they take. Loads torch, model and data."""

from __future__ import annotations

import resource
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TypeVar

import torch

from mcit_core.config import Experiment
from mcit_core.data.workbench import Workbench, workbench_for
from mcit_core.stages.keys import JOINT
from mcit_core.stages.looks import TEST, VALIDATION
from mcit_core.stages.state import StageState
from mcit_core.training.batches import steps_on
from mcit_core.training.evaluation import evaluate_task
from mcit_core.training.stage import build_tuner, train_stage
from mcit_core.tuners import Tuner
from orchestration.plan.bill import embedded_rows
from orchestration.plan.stage_tree import StageTree
from orchestration.plan.timings import (
    ROUGH,
    Sample,
    Timings,
    busy,
    evaluation_likeness,
    rows_name,
    steps_name,
    training_likeness,
    untouched_likeness,
)
from orchestration.plan.trials import Trial

Result = TypeVar("Result")
#: steps that are timed, after a stage of one that loads everything, and another that shows what a stage takes beside
STEPS = 3
#: rows that are evaluated, at most, once before and once on the clock
ROWS = 32


@dataclass(frozen=True)
class _Place:
    """A stage that is to be probed."""

    trial: Trial
    stage: int
    key: str


def unknown_places(trials: list[Trial], tree: StageTree, timings: Timings, device: str) -> list[_Place]:
    """A stage for each kind of which neither training nor evaluation of the same model, tuner and protection is
    known."""
    found: dict[str, _Place] = {}
    for trial in trials:
        for stage, key in enumerate(tree.chains[trial.id]):
            made_from = tree.made_from[key]
            like = training_likeness(made_from, device)
            seen = evaluation_likeness(made_from, device, "", "")
            timing = timings.train(like)
            if timing is None or timing.alike == ROUGH or seen[2] not in timings.evaluation:
                found.setdefault(like[2], _Place(trial, stage, key))
    return [*found.values()]


def probe(trials: list[Trial], tree: StageTree, timings: Timings, device: str, features: Path) -> Iterator[str]:
    """Fill in what `timings` lacks; a line for each thing that was tried. Nothing goes into a stage store. Features of
    rows that are read go into the folder `features`, where the sweep takes them from. Raises what the sweep would."""
    for place in unknown_places(trials, tree, timings, device):
        yield _probe_stage(place, tree, timings, device, features)
    for trial in trials:
        one = trial.experiment
        like = untouched_likeness(one, device)
        if one.protocol != "majority" and like[0] not in timings.evaluation:
            bench = workbench_for(on(one, device), features)
            rows, seconds = _evaluated(bench, one, [None], one.order[0])
            timings.add_evaluation(like[:1], Sample(rows, seconds))
            timings.probed.add(like[0])
            yield f"probed the untouched model: {rows} rows, {1000 * seconds / rows:.3g} ms a row"


def on(one: Experiment, device: str) -> Experiment:
    return one.model_copy(update={"train": one.train.model_copy(update={"device": device})})


def _probe_stage(place: _Place, tree: StageTree, timings: Timings, device: str, features: Path) -> str:
    one = on(place.trial.experiment, device)
    bench, made_from = workbench_for(one, features), tree.made_from[place.key]
    _note_rows(one, bench, tree, place.trial, timings)
    before: StageState | None = None
    if one.protocol == "sequence" and place.stage:
        before, _ = train_stage(_short(one, 1), bench, place.stage - 1, None)

    def train(steps: int) -> tuple[float, StageState]:
        return _timed(bench, lambda: train_stage(_short(one, steps), bench, place.stage, before)[0])

    train(1)  # warms up: statistics are made, kernels loaded, features read
    if bench.model.device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(bench.model.device)
    (short, _), (long, state) = train(1), train(1 + STEPS)
    peak = float(torch.cuda.max_memory_allocated(bench.model.device)) if bench.model.device.type == "cuda" else None
    like = training_likeness(made_from, device)[:3]
    timings.probed |= {name for name in like if name not in timings.training}
    for steps, seconds in ((1, short), (1 + STEPS, max(long, short))):
        timings.add_training(like, Sample(steps, seconds))
    timings.add_size(like, len(state.to_bytes()), peak)
    tuner = build_tuner(one, bench, state.group(0))
    task = one.order[min(place.stage, len(one.order) - 1)]
    rows, spent = _evaluated(bench, one, [tuner], task)
    alike = evaluation_likeness(made_from, device, task, TEST)
    for name in dict.fromkeys((*alike[1:3], *(alike[3:] if alike[3] not in timings.evaluation else ()))):
        timings.probed |= set() if name in timings.evaluation else {name}
        timings.add_evaluation([name], Sample(rows, spent))
    kinds = ", ".join([one.tuner, *(one.protections() if place.stage else ())])
    return (
        f"probed {place.trial.method} ({kinds}), stage {place.stage + 1}: {STEPS} steps at "
        f"{max(long - short, 0.0) / STEPS:.3g} s each, {rows} rows at "
        f"{1000 * spent / rows:.3g} ms each; {_memory(peak)}"
    )


def _memory(peak: float | None) -> str:
    if peak is not None:
        return f"{peak / 1e9:.2f} GB of the GPU at most"
    return f"this process had {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6:.2f} GB of memory at most"


def _short(one: Experiment, steps: int) -> Experiment:
    """The same with so many steps; unchecked, since a warm-up may not fit into them."""
    return one.model_copy(
        update={"train": one.train.model_copy(update={"steps": steps, "epochs": None, "warmup": 0.0})}
    )


def _timed(bench: Workbench, work: Callable[[], Result]) -> tuple[float, Result]:
    """Seconds of some work, as `busy` has them, and what it gives."""
    device = bench.model.device
    begun, begun_cpu = time.perf_counter(), time.process_time()
    result = work()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    spent = busy(time.perf_counter() - begun, time.process_time() - begun_cpu, device.type)
    assert spent is not None
    return spent, result


def _evaluated(bench: Workbench, one: Experiment, tuners: list[Tuner | None], task: str) -> tuple[int, float]:
    settings = one.evaluation.model_copy(update={"rows": min(ROWS, one.evaluation.rows or ROWS)})
    evaluate: Callable[[], object] = partial(evaluate_task, bench, tuners, task, TEST, None, settings)
    evaluate()  # opens the rows
    return min(settings.rows or ROWS, len(bench.rows(task, TEST))), _timed(bench, evaluate)[0]


def _note_rows(one: Experiment, bench: Workbench, tree: StageTree, trial: Trial, timings: Timings) -> None:
    """How many rows and steps there are, now that the data are open; of the embedded benchmark that is known."""
    if embedded_rows(one, TEST) is not None:
        return
    for task in one.order:
        for split in (VALIDATION, TEST):
            timings.rows[rows_name(one.benchmark, task, split)] = len(bench.rows(task, split))
    tasks = (JOINT,) if one.protocol == "multitask" else one.order
    for key, task in zip(tree.chains[trial.id], tasks, strict=True):
        timings.steps[steps_name(tree.made_from[key])] = steps_on(one, bench, task)
