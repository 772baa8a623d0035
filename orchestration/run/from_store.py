"""What a sweep knows of trials without a worker: what their numbers follow from, and all of it where that is stored or
in the RUN."""

from __future__ import annotations

from collections.abc import Callable
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
from orchestration.keep.records import Records
from orchestration.keep.stage_store import StageStore, Trained
from orchestration.plan.halving import Race, run_again
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


def read_race(records: Records, race: Race, listener: Listener) -> bool:
    """Run a race to its end once more by what its RUN shows of an earlier command, and tell a listener of all trials;
    whether that could be done. Where it could not the listener is told nothing, and the race has to be made anew. By a
    pruner's race only what it stopped may be left."""
    left = {name: record for name, record in records.records.items() if record.status != "FINISHED"}
    before = {name: stored for name, record in left.items() if (stored := records.ended_before(record)) is not None}
    if len(before) < len(left):
        return False
    shown = {name: stored.stages for name, stored in before.items()}
    ended = run_again([record.trial for record in left.values()], race, shown)
    if ended is None:
        return False
    for name, count in ended.items():
        key = before[name].key
        if count and key is not None:
            listener.started(name)
            listener.stages(name, shown[name][:count], key)
        if name in race.stopped:
            listener.stopped(name)
        else:
            listener.finished(name)
    return True


def _read_trial(experiment: Experiment, features: Path, store: StageStore) -> tuple[str, list[StageResult]] | None:
    """The key of a trial and all that its stages showed, from the store; None where something is missing."""
    if experiment.protocol == "blind":  # its features may have to be made, which is a worker's task
        return None
    bench = workbench_for(experiment, features)
    sequence = Sequence(experiment, bench, store)
    if sequence.chain and store.record(sequence.chain[-1].key) is None:
        return None
    try:
        return trial_key(experiment, bench), list(sequence)
    except MissingError:
        return None
