"""What data is read, as MLflow's datasets: of a trial its benchmark, of a sweep each task of it."""

from __future__ import annotations

import json
from collections.abc import Iterable

from pydantic import JsonValue

from mcit_core.choices import kind_of, shown_choice
from mcit_core.config import UNTRAINED
from mcit_core.stages.digest import digest
from mcit_core.stages.looks import looks
from mcit_core.stages.results import UNTOUCHED
from orchestration.keep.provenance import Provenance
from orchestration.plan.trials import Trial
from orchestration.tracking.content import Data

SPLITS = ("train", "validation", "test")


def data_of(trial: Trial, provenance: Provenance) -> tuple[Data, ...]:
    """One dataset for all tasks, since several hundred trials each say so; none where the RUN does not say which data
    it was."""
    benchmark, splits = trial.experiment.benchmark, _splits(trial)
    digests = _digests(provenance.get("data"), shown_choice(benchmark))
    if not digests.keys() >= splits.keys():
        return ()
    tasks = {task: {"digest": digests[task], "splits": found} for task, found in sorted(splits.items())}
    every = dict.fromkeys(split for found in splits.values() for split in found)
    held = digest({task: digests[task] for task in tasks})[:16]
    source = json.dumps({"benchmark": benchmark})
    return (Data(kind_of(benchmark), held, source, json.dumps({"tasks": tasks}), ", ".join(every)),)


def tasks_of(trials: Iterable[Trial], provenance: Provenance) -> tuple[Data, ...]:
    """Every task that any of them reads, with all the splits that are read of it."""
    read: dict[tuple[str, str], dict[str, None]] = {}
    chosen = {}
    for trial in trials:
        benchmark = shown_choice(trial.experiment.benchmark)
        chosen[benchmark] = trial.experiment.benchmark
        for task, splits in _splits(trial).items():
            read.setdefault((benchmark, task), {}).update(dict.fromkeys(splits))
    return tuple(
        Data(
            f"{kind_of(chosen[benchmark])}/{task}"[:500],
            held,
            json.dumps({"benchmark": chosen[benchmark], "task": task}),
            json.dumps({"splits": [*splits]}),
            ", ".join(sorted(splits, key=SPLITS.index)),
        )
        for (benchmark, task), splits in read.items()
        if (held := _digests(provenance.get("data"), benchmark).get(task)) is not None
    )


def _digests(told: JsonValue, benchmark: str) -> dict[str, str]:
    """Task -> digest; by benchmark first where a sweep compares several."""
    if not isinstance(told, dict):
        return {}
    here = told.get(benchmark)
    return {task: value for task, value in (here if isinstance(here, dict) else told).items() if isinstance(value, str)}


def _splits(trial: Trial) -> dict[str, list[str]]:
    """Task -> the splits that are read of it."""
    experiment = trial.experiment
    seen = {place for stage in range(UNTOUCHED, trial.stages) for place in looks(experiment, stage)}
    trains = experiment.protocol not in UNTRAINED
    return {
        task: [split for split in SPLITS if (task, split) in seen or (split == "train" and trains)]
        for task in experiment.order
    }
