"""What data a trial reads, as MLflow's datasets: one for each task of its benchmark."""

from __future__ import annotations

import json
from collections.abc import Iterable

from pydantic import JsonValue

from mcit_core.choices import kind_of, shown_choice
from mcit_core.config import UNTRAINED
from mcit_core.stages.looks import looks
from mcit_core.stages.results import UNTOUCHED
from orchestration.keep.provenance import Provenance
from orchestration.plan.trials import Trial
from orchestration.tracking.content import Data


def data_of(trial: Trial, provenance: Provenance) -> tuple[Data, ...]:
    """None where the RUN does not say which data it was."""
    benchmark = trial.experiment.benchmark
    digests = _digests(provenance.get("data"), shown_choice(benchmark))
    splits = _splits(trial)
    return tuple(
        Data(
            f"{kind_of(benchmark)}/{task}"[:500],
            digests[task],
            json.dumps({"benchmark": benchmark, "task": task}),
            json.dumps({"splits": found}),
            ", ".join(found),
        )
        for task, found in splits.items()
        if task in digests
    )


def all_data(trials: Iterable[Trial], provenance: Provenance) -> tuple[Data, ...]:
    """What any of them reads, each once."""
    found: dict[tuple[str, str], Data] = {}
    for trial in trials:
        for data in data_of(trial, provenance):
            had = found.get((data.name, data.digest))
            if had is None or len(data.context) > len(had.context):
                found[data.name, data.digest] = data
    return tuple(found.values())


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
        task: [
            split for split in ("train", "validation", "test") if (task, split) in seen or (split == "train" and trains)
        ]
        for task in experiment.order
    }
