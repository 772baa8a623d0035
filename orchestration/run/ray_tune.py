"""Running trials on Ray Tune: start or join Ray, hand out stages, tell a listener what comes back."""

from __future__ import annotations

import logging
import os
import shutil
import signal
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol

# read when ray is imported: no per-trial log files, no second output engine, no chatter
os.environ.setdefault("TUNE_DISABLE_AUTO_CALLBACK_LOGGERS", "1")
os.environ.setdefault("RAY_AIR_NEW_OUTPUT", "0")
os.environ.setdefault("RAY_CHDIR_TO_TRIAL_DIR", "0")
os.environ.setdefault("TUNE_WARN_EXCESSIVE_EXPERIMENT_CHECKPOINT_SYNC_THRESHOLD_S", "0")
os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
# signals are taken by `stopping`
os.environ.setdefault("TUNE_DISABLE_SIGINT_HANDLER", "1")

import ray
from pydantic import TypeAdapter
from ray import tune
from ray.air.execution._internal.actor_manager import RayActorManager
from ray.exceptions import OutOfMemoryError, RayActorError
from ray.tune.experiment import Trial as TuneTrial
from ray.tune.schedulers import TrialScheduler
from ray.tune.search import Searcher

from mcit_core.stages.results import UNTOUCHED, StageResult
from orchestration.plan.halving import Race, score
from orchestration.plan.scheduler import StageScheduler
from orchestration.plan.spec import SweepSpec
from orchestration.plan.stage_tree import stage_tree
from orchestration.plan.trials import Trial
from orchestration.run.from_store import code_of
from orchestration.run.listener import Listener
from orchestration.run.trainable import StageTrainable, TrialConfig

#: how often a trial whose worker or node was lost is tried again
RETRIES = 3


#: what a worker reports of a step, with what Tune adds to it
Result = Mapping[str, object]

_STAGES = TypeAdapter(list[StageResult])


class _TuneController(Protocol):
    """What is used of Tune's controller; what begins with an underscore may change with Ray's version."""

    _resetting_trials: set[TuneTrial]
    _actor_cache: _ActorCache

    def pause_trial(self, trial: TuneTrial, should_checkpoint: bool = True) -> None: ...
    def stop_trial(self, trial: TuneTrial) -> None: ...
    def _set_trial_status(self, trial: TuneTrial, status: str) -> None: ...


class _ActorCache(Protocol):
    def increase_max(self, key: object, by: int = 1) -> None: ...


def _id(trial: TuneTrial) -> str:
    return str(trial.config["trial"])


def _stages(result: Result) -> list[StageResult]:
    """The stage results in a worker's report, where they arrive as JSON; none in Tune's own of a trial's end."""
    return _STAGES.validate_python(result.get("stages", []))


class _Relay(tune.Callback):
    """Tells a listener of every stage once, however often its trial starts again."""

    def __init__(self, listener: Listener, halving: Race | None) -> None:
        self.listener, self.halving = listener, halving
        self._told: dict[str, int] = {}
        self._failed: set[str] = set()

    def __getstate__(self) -> dict[str, object]:
        return {}  # Tune pickles its callbacks into a file that nothing of ours reads

    def on_trial_start(self, iteration: int, trials: list[TuneTrial], trial: TuneTrial, **info: object) -> None:
        self.listener.started(_id(trial))

    def on_trial_recover(self, iteration: int, trials: list[TuneTrial], trial: TuneTrial, **info: object) -> None:
        self.listener.paused(_id(trial))  # its worker was lost, and it is tried again after a while

    def on_trial_result(
        self, iteration: int, trials: list[TuneTrial], trial: TuneTrial, result: Result, **info: object
    ) -> None:
        name = _id(trial)
        told = self._told.get(name, UNTOUCHED - 1)
        new = [stage for stage in _stages(result) if stage.stage > told]
        if new:
            self._told[name] = new[-1].stage
            self.listener.stages(name, new, str(result["key"]))
        if trial.status == TuneTrial.PAUSED:
            self.listener.paused(name)
        if "error" in result:
            self._failed.add(name)
            self._fail(name, str(result["error"]))

    def on_trial_complete(self, iteration: int, trials: list[TuneTrial], trial: TuneTrial, **info: object) -> None:
        if _out_of_memory(trial):
            self._fail(_id(trial), _cause(trial))
        elif self.halving is not None and _id(trial) in self.halving.stopped:
            self.listener.stopped(_id(trial))
        elif _id(trial) not in self._failed:
            self.listener.finished(_id(trial))

    def on_trial_error(self, iteration: int, trials: list[TuneTrial], trial: TuneTrial, **info: object) -> None:
        self._fail(_id(trial), _cause(trial))

    def _fail(self, trial: str, error: str) -> None:
        if self.listener.failed(trial, error):
            end_tune()


def _failures(trial: TuneTrial) -> str:
    """What Ray wrote each time that a trial's worker was lost."""
    # Tune's own getter looks in the synchronised folder, where the file arrives only after the callbacks
    written = Path(trial.error_file) if trial.error_file else None
    return written.read_text(errors="replace").strip() if written and written.exists() else ""


def _out_of_memory(trial: TuneTrial) -> bool:
    return "running low on memory" in _failures(trial)


def _cause(trial: TuneTrial) -> str:
    """Why a trial's worker was lost for good, in a line, then what Ray wrote each time."""
    text = _failures(trial)
    if _out_of_memory(trial):
        return (
            "out of memory: Ray ended the trial's worker because its machine ran low on memory; set fewer "
            f"resources.workers or a smaller train.batch_size\n{text}"
        )
    reason = next((line.strip() for line in reversed(text.splitlines()) if line.strip()), "Ray did not say why")
    return f"its worker was lost {trial.run_metadata.num_failures} times; the last time: {reason}\n{text}"


class _TrialQueue(Searcher):
    """Gives Tune the configs of all trials at once, and those that `more` has as soon as it has them. Says that more
    may come until the last has ended: Tune throws away the workers of paused trials once its search is over."""

    def __init__(self, configs: list[TrialConfig], more: Callable[[], list[TrialConfig]]) -> None:
        super().__init__()
        self._configs, self._left, self._more = list(reversed(configs)), len(configs), more

    def suggest(self, trial_id: str) -> TrialConfig | str | None:
        if not self._configs:
            self._configs = list(reversed(self._more()))
            self._left += len(self._configs)
        if self._configs:
            return self._configs.pop()
        return None if self._left else str(Searcher.FINISHED)

    def on_trial_complete(self, trial_id: str, result: Result | None = None, error: bool = False) -> None:
        self._left -= 1

    def __reduce__(self) -> tuple[type[Searcher], tuple[()]]:
        return Searcher, ()  # Tune pickles it into a file that nothing of ours reads

    def save(self, checkpoint_path: str) -> None:
        raise NotImplementedError  # Tune then keeps no file of it; a sweep resumes from the stage store

    def restore(self, checkpoint_path: str) -> None:
        raise NotImplementedError


class _TuneScheduler(TrialScheduler):
    """The decisions of `stages` in the terms of Tune. Every trial is PAUSED from the start, so that none runs unless it
    was chosen; at most `workers` have a worker."""

    _supports_buffered_results = False

    def __init__(self, stages: StageScheduler, known: dict[str, Trial], workers: int) -> None:
        super().__init__()
        self.stages, self.known, self.workers = stages, known, workers
        self._trials: dict[str, TuneTrial] = {}

    def on_trial_add(self, tune_controller: _TuneController, trial: TuneTrial) -> None:
        if _id(trial) in self.stages.places:  # again, after its worker was lost
            # where an idle worker was lost, Tune still believes that the trial is about to take it over
            tune_controller._resetting_trials.discard(trial)
            if _out_of_memory(trial):  # it would be again
                tune_controller.stop_trial(trial)
            else:
                tune_controller._set_trial_status(trial, TuneTrial.PAUSED)
            return
        if not self._trials:
            # a worker takes seconds to load: have Tune keep those that have nothing to do for the moment
            tune_controller._actor_cache.increase_max(trial.placement_group_factory, self.workers)
        self.stages.add(_id(trial), self.known[_id(trial)].batch)
        self._trials[_id(trial)] = trial
        trial.init_local_path()  # when a sweep is stopped, Tune asks for it also where a trial never began
        trial.set_status(TuneTrial.PAUSED)

    def choose_trial_to_run(self, tune_controller: _TuneController) -> TuneTrial | None:
        self._stop(tune_controller)
        if len(self.stages.running) >= self.workers:
            return None
        name = self.stages.choose()
        if name is None:
            return None
        self.stages.start(name)
        return self._trials[name]

    def _stop(self, tune_controller: _TuneController) -> None:
        """End the trials that halving has dropped. Here, since every callback has seen a trial's last result by now."""
        halving = self.stages.halving
        if halving is None or not halving.stopped:
            return
        for name in [name for name in halving.stopped if name in self.stages.places]:
            trial = self._trials[name]
            if trial.status == TuneTrial.PAUSED:
                tune_controller.stop_trial(trial)
                # Tune swallows what a callback raises, and would go on for ever
                if trial.status == TuneTrial.PAUSED:
                    raise RuntimeError(f"{name} was dropped by halving, but its end could not be written down")

    def on_trial_result(self, tune_controller: _TuneController, trial: TuneTrial, result: Result) -> str:
        if result.get("busy"):
            self.stages.busy(_id(trial))
        elif self._finish(trial, result):
            return str(TrialScheduler.CONTINUE)
        # no checkpoint: what the trial has done is in the stage store
        tune_controller.pause_trial(trial, should_checkpoint=False)
        return str(TrialScheduler.NOOP)

    def _finish(self, trial: TuneTrial, result: Result) -> bool:
        go_on = True
        for stage in _stages(result):
            if stage.stage != UNTOUCHED:
                learned = self.known[_id(trial)].experiment.order[: stage.stage + 1]
                go_on = self.stages.finish(_id(trial), stage.stage, score(stage.accuracy, learned))
        return go_on

    def on_trial_error(self, tune_controller: _TuneController, trial: TuneTrial) -> None:
        # Tune has given a trial that it tries again this status by now, and the others not yet
        if trial.status == TuneTrial.ERROR:
            self.stages.lose(_id(trial))
        else:
            self.stages.end(_id(trial))

    def on_trial_complete(self, tune_controller: _TuneController, trial: TuneTrial, result: Result) -> None:
        self._finish(trial, result)  # Tune shows its scheduler no last result but here
        self.stages.end(_id(trial))

    def on_trial_remove(self, tune_controller: _TuneController, trial: TuneTrial) -> None:
        self.stages.end(_id(trial))

    def debug_string(self) -> str:
        return f"{len(self.stages.done)} stages done"

    def save(self, checkpoint_path: str) -> None:
        """Nothing: a sweep resumes from the stage store."""

    def restore(self, checkpoint_path: str) -> None:
        """Nothing; see save."""


def _take_for_lost() -> None:
    """Have Tune take a worker that Ray ended for want of memory in the middle of a step for one that was lost. It knows
    RayActorError alone, and the OutOfMemoryError that Ray raises there would end the whole sweep."""
    plain = RayActorManager._actor_task_failed
    if getattr(plain, "takes_for_lost", False):
        return

    def failed(self: RayActorManager, tracked_actor_task: object, exception: Exception) -> None:
        if isinstance(exception, OutOfMemoryError):
            exception = RayActorError(error_msg=str(exception))
        plain(self, tracked_actor_task, exception)

    failed.takes_for_lost = True  # type: ignore[attr-defined]
    RayActorManager._actor_task_failed = failed


@contextmanager
def ray_session(address: str | None) -> Iterator[None]:
    """Ray for the time of a sweep: joined at `address`, or started on this machine's loopback and ended afterwards. Ray
    itself counts what there is of CPUs and GPUs."""
    quiet: dict[str, object] = {"logging_level": logging.ERROR, "log_to_driver": False}
    if address:
        ray.init(address=address, **quiet)
    else:
        ray.init(
            address="local",  # or else Ray joins any cluster that it finds on this machine
            include_dashboard=False,
            **quiet,
        )
    try:
        yield
    finally:
        ray.shutdown()


def rooms() -> list[dict[str, float]]:
    """What the nodes of the Ray that was joined have, each by itself."""
    found = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    return [{"cpus": room.get("CPU", 0.0), "gpus": room.get("GPU", 0.0)} for room in found]


def make_scratch(storage: Path, name: str) -> Path:
    """A folder for what Tune writes and nothing of ours reads: on the storage, since Tune asks for one that all nodes
    reach, and this user's alone. What an earlier process left there of the same sweep is removed."""
    folder = storage / ".scratch"
    folder.mkdir(exist_ok=True)
    for old in folder.glob(f"{name}-????????"):
        shutil.rmtree(old, ignore_errors=True)
    return Path(tempfile.mkdtemp(prefix=f"{name}-", dir=folder))


def end_tune() -> None:
    """Have Tune end in good order, as it does on this signal once it listens to it. Raises KeyboardInterrupt before."""
    if signal.getsignal(signal.SIGUSR1) in (signal.SIG_DFL, None):
        raise KeyboardInterrupt
    signal.raise_signal(signal.SIGUSR1)


def placement(spec: SweepSpec) -> tune.PlacementGroupFactory:
    """What a trial takes: a bundle for each of its processes, on one node where they fit there."""
    one = {"CPU": spec.cpus, "GPU": spec.gpus}
    return tune.PlacementGroupFactory([one] * spec.processes, strategy="PACK")


def run_trials(
    spec: SweepSpec,
    trials: list[Trial],
    more: Callable[[], list[Trial]],
    race: Race | None,
    storage: Path,
    stages: str,
    listener: Listener,
    workers: int,
) -> None:
    """Run all trials, and those that `more` has after any of them has ended, at most `workers` at a time, no stage
    twice, finished ones kept in `stages`; `race`: which of them do not run to their end. A failing trial never stops
    the others; one whose worker was lost is tried again, one that raised an exception is not."""
    _take_for_lost()
    tree, known = stage_tree([]), {}
    scheduler = StageScheduler(tree, race)

    def admit(new: list[Trial]) -> list[TrialConfig]:
        known.update({trial.id: trial for trial in new})
        scheduler.extend([key for trial in new for key in tree.add(trial)])
        return [
            TrialConfig(
                trial=trial.id,
                experiment=trial.experiment.model_dump_json(),
                features=str(storage / "features"),
                stages=stages,
                gpus=spec.gpus,
                code=code_of(trial.experiment),
            )
            for trial in new
        ]

    scratch = make_scratch(storage, spec.name)
    logging.getLogger("ray.tune").setLevel(logging.CRITICAL)
    logging.getLogger("ray").setLevel(logging.CRITICAL)
    try:
        tune.Tuner(
            tune.with_resources(StageTrainable, placement(spec)),
            tune_config=tune.TuneConfig(
                search_alg=_TrialQueue(admit(trials), lambda: admit(more())),
                scheduler=_TuneScheduler(scheduler, known, workers),
                num_samples=-1,  # until the queue says that it is empty
                reuse_actors=True,
                trial_dirname_creator=_id,
            ),
            run_config=tune.RunConfig(
                name="tune",
                storage_path=str(scratch),
                callbacks=[_Relay(listener, race)],
                verbose=0,
                # nothing reads it, so that nothing may fail for it
                checkpoint_config=tune.CheckpointConfig(checkpoint_at_end=False),
                failure_config=tune.FailureConfig(max_failures=RETRIES),
            ),
        ).fit()
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
