"""Searched sweeps without training: the course, records and progress are the real ones, stages are synthetic.

A trial's accuracies follow from its settings, order and seed alone, so that two runs of one sweep differ in nothing but
which trial ends first, how many run at once, and where they are interrupted.
"""

from __future__ import annotations

import io
import math
import random
from collections.abc import Callable
from pathlib import Path
from statistics import fmean

import yaml
from rich.console import Console

from mcit_core.stages.results import Cell, StageResult
from orchestration.keep.records import Records
from orchestration.plan.halving import Races
from orchestration.plan.spec import SweepSpec
from orchestration.plan.sweep_file import load_spec
from orchestration.plan.trials import Trial
from orchestration.run.progress import Progress
from orchestration.search.course import Course

#: accuracy of a trial's tasks after each of its stages: [stages][tasks]
Truth = Callable[[Trial], list[list[float]]]
SWEEP: dict[str, object] = {
    "name": "s",
    "benchmark": "mini",
    "model": "mini",
    "method": "fwd_prompt",
    "tasks": 2,
    "axes": {
        "pool.size": {"low": 20, "high": 60, "step": 4},
        "pool.top_k": {"low": 2, "high": 24},
        "train.lr": {"low": 0.001, "high": 1.0, "log": True},
        "projection.mode": ["none", "both"],
        "projection.task_energy": {"low": 0.4, "high": 0.99, "when": {"projection.mode": "both"}},
    },
}


class KilledError(Exception):
    """The driver died."""


def write_sweep_file(folder: Path, **keys: object) -> SweepSpec:
    """SWEEP with these keys in place of its own."""
    path = folder / "sweep.yaml"
    path.write_text(yaml.safe_dump({**SWEEP, **keys}))
    return load_spec(path)


def smooth(trial: Trial) -> list[list[float]]:
    """A bowl around lr 0.03 and task_energy 0.8; protection forgets less. Seeds add a little."""
    values = trial.settings
    noise = random.Random(f"{trial.experiment.seed} {trial.order}").random() / 50
    energy = values.get("projection.task_energy")
    far = (math.log10(float(str(values["train.lr"])) / 0.03)) ** 2
    far += 4 * (float(str(energy)) - 0.8) ** 2 if energy is not None else 0.3
    best = 0.9 - 0.2 * far - abs(float(str(values["pool.size"])) - 40) / 400 + noise
    first = max(0.0, min(1.0, best))
    kept = first * (0.95 if energy is not None else 0.6)
    return [[first, 0.1], [kept, first]]


def result(trial: Trial, stage: int, accuracy: list[float]) -> StageResult:
    cells = [
        Cell(task, split, value, None, 100)
        for task, value in zip(trial.experiment.order, accuracy, strict=True)
        for split in ("validation", "test")
    ]
    measured = {"loss/last": 0.5, "trained_parameters": 100.0, "memory_bytes": 8.0, "seconds/train": 1.0}
    return StageResult(stage, trial.experiment.order[stage], cells, measured, {"loss": [0.5]})


def run_search(
    spec: SweepSpec, folder: Path, workers: int, rng: random.Random, truth: Truth = smooth, deaths: int = 0
) -> Records:
    """Run a sweep to its end with so many workers, of which a random one is done next; after `deaths` of the ends the
    driver begins anew with what the RUN folder holds. A trial fails where `truth` raises."""
    while True:
        folder.mkdir(exist_ok=True)
        # the last command is not interrupted
        lives = rng.randint(1, 7) if deaths else None
        deaths -= 1
        try:
            return _run(spec, folder, workers, rng, truth, lives)
        except KilledError:
            continue


def _run(spec: SweepSpec, folder: Path, workers: int, rng: random.Random, truth: Truth, lives: int | None) -> Records:
    course = Course(spec, folder)
    records = Records(folder, spec, course.trials())
    records.begin(lambda trial: "key", bool(spec.halving))
    progress = Progress(Console(file=io.StringIO()), records, lambda trial: None)
    race = course.race(records) or Races()
    waiting = [record.trial for record in records.records.values() if record.status != "FINISHED"]
    running: list[Trial] = []
    while True:
        waiting += course.more(records, progress.added)
        free = [trial for trial in waiting if not race.held(trial.id)]
        for trial in [trial for trial in waiting if trial.id in race.stopped]:
            waiting.remove(trial)
            progress.stopped(trial.id)
            race.leave(trial.id)
        for trial in free[: workers - len(running)]:
            waiting.remove(trial)
            running.append(trial)
            progress.started(trial.id)
        if not running:
            if not waiting and course.over:
                break
            continue
        trial = running.pop(rng.randrange(len(running)))
        if lives is not None:
            lives -= 1
            if lives < 0:
                raise KilledError
        stage = len(records.records[trial.id].trained)
        try:
            rows = truth(trial)
        except ArithmeticError as error:
            progress.failed(trial.id, str(error))
            race.leave(trial.id)
            continue
        progress.stages(trial.id, [result(trial, stage, rows[stage])], "key")
        race.reach(trial.id, stage + 1, fmean(rows[stage][: stage + 1]))
        if stage + 1 == len(rows):
            progress.finished(trial.id)
            race.leave(trial.id)
        elif race.held(trial.id):
            waiting.append(trial)
            progress.paused(trial.id)
        else:
            running.append(trial)
    records.write()
    course.conclude(records)
    return records
