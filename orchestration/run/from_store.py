"""What a sweep knows of a trial without a worker: what its numbers follow from, and all of it where that is stored."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from mcit_core.benchmarks import judging_of
from mcit_core.config import Experiment
from mcit_core.data.workbench import Workbench, workbench_for
from mcit_core.stages.digest import digest
from mcit_core.stages.fingerprint import rows_code, stage_code, untouched_code
from mcit_core.stages.keys import StageKey, stage_chain
from mcit_core.stages.looks import RETENTION, looks
from mcit_core.stages.results import UNTOUCHED, Evaluation, StageResult
from mcit_core.training.sequence import Sequence
from orchestration.keep.stage_store import StageStore, Trained
from orchestration.plan.halving import Race, score
from orchestration.plan.trials import Trial
from orchestration.run.listener import Listener


class MissingError(Exception):
    """A stage or an evaluation that is not in the store."""


class _Stored(StageStore):
    """Trains and keeps nothing. Raises MissingError for what is not there."""

    def stage(self, key: StageKey, train: Callable[[], Trained]) -> tuple[*Trained, bool]:
        found = self.get_stage(key.key)
        if found is None:
            raise MissingError
        return *found, True

    def get_evaluation(self, key: str, stage: str | None = None) -> Evaluation:
        found = super().get_evaluation(key, stage)
        if found is None:
            raise MissingError
        return found

    def put_evaluation(self, key: str, evaluation: Evaluation, stage: str | None = None) -> None:
        """Nothing: what is read has been kept."""


def code_of(experiment: Experiment) -> dict[str, str]:
    """Module of ours -> digest, distribution -> version: of all that a trial runs."""
    found = stage_code(experiment, experiment.protections())
    parts = [found["code"], found["libraries"]]
    return {name: str(text)[:12] for part in parts if isinstance(part, dict) for name, text in part.items()}


def trial_key(experiment: Experiment, bench: Workbench) -> str:
    """Of all that a trial's numbers follow from beside its experiment: code, versions, data and weights. The device is
    left out, since the driver need not have that of its workers."""
    common = {"weights": bench.model.digest, "sample": bench.data_digest("pretraining", "statistics")}
    data = {task: bench.data_digest(task) for task in experiment.order}
    chain = stage_chain(experiment, common, data, lambda protections: stage_code(experiment, protections))
    evaluated = {place for stage in (UNTOUCHED, *range(len(chain))) for place in looks(experiment, stage)} - {RETENTION}
    judging = {task: judging_of(bench.benchmark, task) for task in experiment.order}
    return digest(
        {
            "stages": [key.key for key in chain],
            "untouched": untouched_code(experiment),
            "data": {f"{task} {split}": bench.data_digest(task, split) for task, split in sorted(evaluated)},
            **({"judging": judging} if any(judging.values()) else {}),
            # which the others leave out, since its cells are in no store
            **({"majority": rows_code("mcit_core.training.majority")} if experiment.protocol == "majority" else {}),
            **common,
        }
    )


def key_here(experiment: Experiment, features: Path) -> str | None:
    """`trial_key` on this machine; None where it cannot be told, as where the model does not load here."""
    try:
        return trial_key(experiment, workbench_for(experiment, features))
    except Exception:  # torch has many for a device that is not here
        return None


def read_trials(trials: list[Trial], features: Path, stages: str, listener: Listener) -> list[Trial]:
    """Tell a listener of every trial of which everything is stored; returns the others."""
    left, store = [], _Stored(stages)
    for trial in trials:
        try:
            found = _read_trial(trial.experiment, features, store)
        except Exception:  # a worker may do better, or says what is wrong
            found = None
        if found is None:
            left.append(trial)
            continue
        key, results = found
        listener.started(trial.id)
        listener.stages(trial.id, results, key)
        listener.finished(trial.id)
    return left


def read_race(trials: list[Trial], race: Race, features: Path, stages: str, listener: Listener) -> bool:
    """Run a race of trials to its end from what is stored, and tell a listener of all of them; whether that could be
    done. Where something is missing the listener is told nothing, and the race has to be made anew."""
    store = _Stored(stages)
    try:
        sequences = {trial.id: _begin(trial.experiment, features, store) for trial in trials}
        shown = _raced(trials, race, {name: iter(sequence) for name, sequence in sequences.items()})
        keys = {trial.id: trial_key(trial.experiment, sequences[trial.id].bench) for trial in trials}
    except Exception:  # a worker may do better, or says what is wrong
        return False
    for name, results in shown.items():
        if results:
            listener.started(name)
            listener.stages(name, results, keys[name])
        if name in race.stopped:
            listener.stopped(name)
        else:
            listener.finished(name)
    return True


def _raced(
    trials: list[Trial], race: Race, sequences: Mapping[str, Iterator[StageResult]]
) -> dict[str, list[StageResult]]:
    """What every trial shows until it finishes or is stopped, in the order of their ends, a stage of each in turn.
    Raises MissingError where all that are left wait for one another."""
    shown: dict[str, list[StageResult]] = {}
    waiting: dict[str, tuple[Trial, list[StageResult]]] = {trial.id: (trial, []) for trial in trials}
    while waiting:
        moved = False
        for name, (trial, results) in [*waiting.items()]:
            if not race.held(name):
                result = next(sequences[name])
                results.append(result)
                moved = True
                if result.stage != UNTOUCHED:
                    learned = trial.experiment.order[: result.stage + 1]
                    race.reach(name, result.stage + 1, score(result.accuracy, learned))
            if name in race.stopped or len(results) == 1 + trial.stages:
                race.leave(name)
                shown[name] = waiting.pop(name)[1]
                moved = True
        if not moved:
            raise MissingError
    return shown


def _begin(experiment: Experiment, features: Path, store: StageStore) -> Sequence:
    """Raises MissingError for the blind model, whose features may have to be made, which is a worker's task."""
    if experiment.protocol == "blind":
        raise MissingError
    return Sequence(experiment, workbench_for(experiment, features), store)


def _read_trial(experiment: Experiment, features: Path, store: StageStore) -> tuple[str, list[StageResult]] | None:
    """The key of a trial and all that its stages showed, from the store; None where something is missing."""
    try:
        sequence = _begin(experiment, features, store)
        if sequence.chain and store.record(sequence.chain[-1].key) is None:
            return None
        return trial_key(experiment, sequence.bench), list(sequence)
    except MissingError:
        return None
