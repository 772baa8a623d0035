"""What a RUN did not have to train: stages that trials share, and those of trials that were stopped early."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from statistics import mean

from mcit_core.stages.results import UNTOUCHED, StageResult
from mcit_core.yaml_document import SpecError
from orchestration.keep.stage_records import PEAK
from orchestration.keep.tables import OUTDATED, text_in
from orchestration.plan.stage_tree import stage_tree
from orchestration.plan.sweep_file import load_spec
from orchestration.results.reading import Results
from orchestration.search.proposals import run_trials_of

#: of training a stage: of the process's CPU and by the clock
CPU, CLOCK = "seconds/train_cpu", "seconds/train"


@dataclass(frozen=True)
class Part:
    stages: int
    seconds: float


@dataclass(frozen=True)
class Saved:
    """Seconds of training, without evaluation. `made`: every stage once, trained by this sweep or found in the store.
    `shared`: what trials would have taken by themselves for stages that an earlier one has too. `stopped`: stages that
    trials which were stopped early did not come to, and no other trial made, where one was made at the same place of a
    sequence; their seconds are reckoned, at the mean of those that were. `cpu`: seconds are the CPU's, or else by the
    clock."""

    made: Part
    shared: Part
    stopped: Part
    cpu: bool


def saved(results: Results) -> Saved | None:
    """None of what is no RUN, or has no stages, or a sweep file that this version does not read."""
    file = results.folder / "sweep.yaml"
    if results.imported or not file.exists():
        return None
    try:
        trials = {trial.id: trial for trial in run_trials_of(load_spec(file), results.folder)}
    except SpecError:
        return None
    rows = [row for row in results.trials if text_in(row, "trial") in trials and row["status"] != OUTDATED]
    reached = {text_in(row, "trial"): _trained(results.stages.get(text_in(row, "trial"), [])) for row in rows}
    every = [stage.metrics for stages in reached.values() for stage in stages]
    cpu = all(CPU in metrics and PEAK not in metrics for metrics in every)
    chains = stage_tree(trials[name] for name in reached).chains
    made: dict[str, float] = {}
    places: dict[int, list[float]] = {}
    shared: list[float] = []
    for name, stages in reached.items():
        for stage in stages:
            key = chains[name][stage.stage]
            if key in made:
                shared.append(made[key])
                continue
            made[key] = stage.metrics.get(CPU if cpu else CLOCK, 0.0)
            places.setdefault(stage.stage, []).append(made[key])
    if not made:
        return None
    ended = [text_in(row, "trial") for row in rows if row["status"] == "STOPPED"]
    never = {
        key: mean(places[stage])
        for name in ended
        for stage, key in enumerate(chains[name])
        if key not in made and stage in places
    }
    return Saved(_part(made.values()), _part(shared), _part(never.values()), cpu)


def _part(seconds: Collection[float]) -> Part:
    return Part(len(seconds), sum(seconds))


def _trained(stages: Sequence[StageResult]) -> list[StageResult]:
    return [stage for stage in stages if stage.stage != UNTOUCHED]
