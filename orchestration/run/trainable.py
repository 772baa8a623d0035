"""The Ray Tune trainable: one step() is one stage; a worker that changes trial keeps model and features loaded."""

from __future__ import annotations

import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import TypedDict

from ray import tune

from mcit_core.config import Experiment
from mcit_core.data.workbench import drop_workbenches, workbench_for
from mcit_core.stages.results import StageResult
from mcit_core.training.sequence import Sequence as TaskSequence  # not the one of collections.abc
from orchestration.keep.stage_store import StageStore
from orchestration.run.from_store import trial_key


class TrialConfig(TypedDict):
    """A trial as Tune hands it to a worker: its id, its experiment as JSON, the folder of features, the stage store."""

    trial: str
    experiment: str
    features: str
    stages: str


class StageTrainable(tune.Trainable):
    """A trial on a worker.

    A result holds `stages`, the stage results of the step as JSON, and `key`, what the trial's numbers follow from; the
    first step reports the untouched model too.
    A trial that starts again, after a pause or on another worker, reports its finished stages again, from the store.
    An exception (out of memory too) is the trial's result, `error`, and its end: it would come again, so that Tune,
    which tries again where a worker is lost, does not get to see it.
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
        except Exception as error:
            # what it left half done in the shared model must not reach the next trial
            drop_workbenches()
            self._results = None
            told = str(error) or "no message"
            return {
                "stages": [],
                "done": True,
                "error": f"{type(error).__name__}: {told}\n{traceback.format_exc()}",
            }

    def _advance(self) -> list[StageResult]:
        shown: list[StageResult] = []
        if self._results is None:
            experiment = Experiment.model_validate_json(self._config["experiment"])
            bench = workbench_for(experiment, Path(self._config["features"]))
            sequence = TaskSequence(experiment, bench, StageStore(self._config["stages"]))
            self._key = trial_key(experiment, bench)
            self._results = iter(sequence)
            self._left = len(sequence.chain)
            shown.append(next(self._results))
        if self._left:
            shown.append(next(self._results))
            self._left -= 1
        return shown

    def save_checkpoint(self, checkpoint_dir: str) -> None:
        """Nothing: finished stages are in the store, and a trial that starts again takes them from there."""

    def load_checkpoint(self, checkpoint: object) -> None:
        """Nothing; see save_checkpoint."""
