"""The Ray Tune trainable: one step() is one stage; a worker that changes trial keeps model and features loaded."""

from __future__ import annotations

import traceback
from collections.abc import Iterator
from functools import cache, partial
from pathlib import Path
from typing import TypedDict

from ray import tune

from mcit_core.config import Experiment
from mcit_core.data.workbench import drop_workbenches, workbench_for
from mcit_core.stages.results import StageResult
from mcit_core.training.sequence import Sequence as TaskSequence  # not the one of collections.abc
from mcit_core.training.sequence import Trainer
from mcit_core.training.stage import train_stage
from orchestration.keep.stage_store import BusyError, StageStore
from orchestration.run.from_store import trial_key
from orchestration.run.node import check_code, is_node_fault, take_device
from orchestration.run.team import MEMBERS, Job


class TrialConfig(TypedDict):
    """A trial as Tune hands it to a worker: its id, its experiment as JSON, the folder of features, the stage store,
    how many GPUs each of its processes was given, and the driver's code and versions (see `code_of`)."""

    trial: str
    experiment: str
    features: str
    stages: str
    gpus: float
    code: dict[str, str]


@cache
def store_at(place: str) -> StageStore:
    """The one of this process: how long the lease of another has not changed is known to who keeps looking."""
    return StageStore(place, wait=False)


class StageTrainable(tune.Trainable):
    """A trial on a worker.

    A result holds `stages`, the stage results of the step as JSON, and `key`, what the trial's numbers follow from; the
    first step reports the untouched model too. `busy`: another sweep trains the next stage, so that the worker is free
    for another trial meanwhile.
    A trial that starts again, after a pause or on another worker, reports its finished stages again, from the store.
    An exception (out of memory too) is the trial's result, `error`, and its end: it would come again, so that Tune,
    which tries again where a worker is lost, does not get to see it. But for a fault of the node: Tune ends the worker,
    and tries again with another one.
    """

    def setup(self, config: TrialConfig) -> None:
        self._start(config)

    def reset_config(self, new_config: TrialConfig) -> bool:
        self._start(new_config)
        return True

    def _start(self, config: TrialConfig) -> None:
        self._config = config
        self._results: Iterator[StageResult] | None = None
        self._left = 0
        self._key = ""

    def step(self) -> dict[str, object]:
        try:
            stages = [result.to_json() for result in self._advance()]
            return {"stages": stages, "key": self._key, "done": self._left == 0}
        except BusyError:
            self._results = None
            return {"stages": [], "key": self._key, "done": False, "busy": True}
        except Exception as error:
            told = f"{type(error).__name__}: {str(error) or 'no message'}\n{traceback.format_exc()}"
            # what it left half done in the shared model must not reach the next trial, nor what it holds of a GPU
            self._results = None
            traceback.clear_frames(error.__traceback__)
            drop_workbenches()
            if is_node_fault(error):
                raise
            return {"stages": [], "done": True, "error": told}

    def _advance(self) -> list[StageResult]:
        shown: list[StageResult] = []
        if self._results is None:
            take_device(self._config["gpus"])
            experiment = Experiment.model_validate_json(self._config["experiment"])
            check_code(experiment, self._config["code"])
            bench = workbench_for(experiment, Path(self._config["features"]))
            sequence = TaskSequence(experiment, bench, store_at(self._config["stages"]), self._trainer(experiment))
            self._key = trial_key(experiment, bench)
            self._results = iter(sequence)
            self._left = len(sequence.chain)
            shown.append(next(self._results))
        if self._left:
            shown.append(next(self._results))
            self._left -= 1
        return shown

    def _trainer(self, experiment: Experiment) -> Trainer:
        config = self._config
        if experiment.train.processes == 1:
            return train_stage
        job = Job(config["experiment"], config["features"], config["gpus"], config["code"])
        return partial(MEMBERS.train_stage, job)

    def cleanup(self) -> None:
        MEMBERS.end()

    def save_checkpoint(self, checkpoint_dir: str) -> None:
        """Nothing: finished stages are in the store, and a trial that starts again takes them from there."""

    def load_checkpoint(self, checkpoint: object) -> None:
        """Nothing; see save_checkpoint."""
