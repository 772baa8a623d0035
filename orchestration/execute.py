"""Running trials on Ray Tune: start or join Ray, hand out stages, tell a listener what comes back."""

from __future__ import annotations

import logging
import math
import os
import shutil
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

# read when ray is imported: no per-trial log files, no second output engine, no chatter
os.environ.setdefault("TUNE_DISABLE_AUTO_CALLBACK_LOGGERS", "1")
os.environ.setdefault("RAY_AIR_NEW_OUTPUT", "0")
os.environ.setdefault("RAY_CHDIR_TO_TRIAL_DIR", "0")
os.environ.setdefault("TUNE_WARN_EXCESSIVE_EXPERIMENT_CHECKPOINT_SYNC_THRESHOLD_S", "0")
os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")

import ray
from ray import tune

from orchestration.plan import SweepSpec, Trial
from orchestration.trainable import StageTrainable


class Listener(Protocol):
    def started(self, trial: str) -> None: ...
    def stages(self, trial: str, results: list[dict[str, Any]]) -> None: ...
    def finished(self, trial: str) -> None: ...
    def failed(self, trial: str, error: str) -> None: ...


class _Relay(tune.Callback):
    def __init__(self, listener: Listener) -> None:
        self.listener = listener

    def __getstate__(self) -> dict[str, Any]:
        return {}  # Tune pickles its callbacks into a file that nothing of ours reads

    @staticmethod
    def _id(trial: Any) -> str:
        return str(trial.config["trial"]["id"])

    def on_trial_start(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        self.listener.started(self._id(trial))

    def on_trial_result(
        self, iteration: int, trials: list[Any], trial: Any, result: dict[str, Any], **info: Any
    ) -> None:
        self.listener.stages(self._id(trial), result["stages"])

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        self.listener.finished(self._id(trial))

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        self.listener.failed(self._id(trial), _cause(trial))


def _cause(trial: Any) -> str:
    """The user's error out of Ray's wrapping: its last line first, then the traceback."""
    # Tune's own getter looks in the synchronised folder, where the file arrives only after this callback
    written = Path(trial.error_file) if trial.error_file else None
    text = written.read_text(errors="replace").strip() if written and written.exists() else ""
    lines = [line for line in text.splitlines() if line.strip()]
    return f"{lines[-1].strip()}\n{text}" if lines else "the worker ended without a word"


@contextmanager
def ray_session(address: str | None, workers: int, cpus: float, gpus: float) -> Iterator[None]:
    """Ray for the time of a sweep: joined at `address`, or started on this machine's loopback and ended afterwards."""
    quiet: dict[str, Any] = {"logging_level": logging.ERROR, "log_to_driver": False}
    if address:
        ray.init(address=address, **quiet)
    else:
        ray.init(
            num_cpus=max(1, math.ceil(workers * cpus)),
            num_gpus=math.ceil(workers * gpus) if gpus else None,
            include_dashboard=False,
            _node_ip_address="127.0.0.1",
            **quiet,
        )
    # Tune ends a sweep in good order on SIGINT; a cluster's or a shell's SIGTERM means the same
    signal.signal(signal.SIGTERM, lambda *_: signal.raise_signal(signal.SIGINT))
    try:
        yield
    finally:
        ray.shutdown()


def run_trials(spec: SweepSpec, trials: list[Trial], storage: Path, listener: Listener, workers: int) -> None:
    """Run all trials, at most `workers` at a time. A failing trial never stops the others; nothing is retried."""
    configs = [{"id": trial.id, "experiment": trial.experiment.model_dump_json()} for trial in trials]
    scratch = storage / spec.name / "ray"
    logging.getLogger("ray.tune").setLevel(logging.CRITICAL)
    logging.getLogger("ray").setLevel(logging.CRITICAL)
    try:
        tune.Tuner(
            tune.with_resources(StageTrainable, {"cpu": spec.cpus, "gpu": spec.gpus}),
            param_space={
                "trial": tune.grid_search(configs),
                "features": str(storage / "features"),
                "stages": str(storage / "stages"),
            },
            tune_config=tune.TuneConfig(max_concurrent_trials=workers, reuse_actors=True),
            run_config=tune.RunConfig(
                name="tune",
                storage_path=str(scratch),
                callbacks=[_Relay(listener)],
                verbose=0,
                failure_config=tune.FailureConfig(max_failures=0),
            ),
        ).fit()
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
