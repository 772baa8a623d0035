"""What a RUN did not have to train: stages that trials share, and those of trials that were stopped early."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import mean

from mcit_core.stages.results import UNTOUCHED, StageResult
from mcit_core.yaml_document import SpecError
from orchestration.keep.tables import text_in
from orchestration.plan.stage_tree import stage_tree
from orchestration.plan.sweep_file import load_spec
from orchestration.results.reading import Results
from orchestration.search.proposals import run_trials_of

#: of a stage, of the process's CPU and by the clock
CPU, CLOCK = ("seconds/train_cpu", "seconds/evaluate_cpu"), ("seconds/train", "seconds/evaluate")


@dataclass(frozen=True)
class Part:
    stages: int
    seconds: float


@dataclass(frozen=True)
class Saved:
    """`made`: every stage once, with its evaluations, whether trained by this sweep or found in the store. `shared`:
    what trials that have a stage in common with another would have taken for it by themselves. `stopped`: stages that
    trials which were stopped early did not come to, and no other trial made; their seconds are reckoned, at the mean of
    those that were made at the same place of a sequence. `cpu`: seconds are the CPU's, or else by the clock."""

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
    rows = [row for row in results.trials if text_in(row, "trial") in trials]
    reached = {text_in(row, "trial"): _trained(results.stages.get(text_in(row, "trial"), [])) for row in rows}
    cpu = all(name in stage.metrics for stages in reached.values() for stage in stages for name in CPU)
    chains = stage_tree(trials[name] for name in reached).chains
    made: dict[str, float] = {}
    places: dict[int, dict[str, float]] = {}
    shared: list[float] = []
    for name, stages in reached.items():
        for stage in stages:
            key, seconds = chains[name][stage.stage], sum(stage.metrics.get(n, 0.0) for n in (CPU if cpu else CLOCK))
            if key in made:
                shared.append(seconds)
            made.setdefault(key, seconds)
            places.setdefault(stage.stage, {})[key] = made[key]
    if not made:
        return None
    ended = [text_in(row, "trial") for row in rows if row["status"] == "STOPPED"]
    never = {key: n for name in ended for n, key in enumerate(chains[name]) if key not in made}
    reckoned = [mean(places[n].values()) for n in never.values() if n in places]
    return Saved(
        Part(len(made), sum(made.values())),
        Part(len(shared), sum(shared)),
        Part(len(never), sum(reckoned)),
        cpu,
    )


def _trained(stages: Sequence[StageResult]) -> list[StageResult]:
    return [stage for stage in stages if stage.stage != UNTOUCHED]
