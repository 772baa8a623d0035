"""The Ray Tune trainable: one step() is one stage; a worker that changes trial keeps model and features loaded."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

from ray import tune

from mcit_core.config import Experiment
from mcit_core.sequence import Sequence, StageResult
from mcit_core.workbench import workbench_for
from orchestration.store import StageStore


class StageTrainable(tune.Trainable):
    """Config: {"trial": {"id", "experiment"}, "features": folder, "stages": folder}.

    A result holds `stages`, the stage results of the step as mappings; the first step reports the untouched model too.
    """

    def setup(self, config: dict[str, Any]) -> None:
        self._start(config)

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        self._start(new_config)
        return True

    def _start(self, config: dict[str, Any]) -> None:
        self._config = config
        self._results: Iterator[StageResult] | None = None
        self._left = 0

    def step(self) -> dict[str, Any]:
        if self._results is None:  # opened here, not in setup, so that a failure is this trial's and no actor's
            experiment = Experiment.model_validate_json(self._config["trial"]["experiment"])
            bench = workbench_for(experiment, Path(self._config["features"]))
            sequence = Sequence(experiment, bench, StageStore(Path(self._config["stages"])))
            self._results = iter(sequence)
            self._left = len(sequence.chain)
            shown = [next(self._results)]
        else:
            shown = []
        if self._left:
            shown.append(next(self._results))
            self._left -= 1
        return {"stages": [asdict(result) for result in shown], "done": self._left == 0}

    def save_checkpoint(self, checkpoint_dir: str) -> None:
        """Nothing: finished stages are in the store, and a trial that starts again takes them from there."""

    def load_checkpoint(self, checkpoint: Any) -> None:
        """Nothing; see save_checkpoint."""
