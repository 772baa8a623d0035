"""Every name of Ray's that it does not promise and that orchestration uses, so that an upgrade of Ray fails here."""

from __future__ import annotations

import ast
import importlib
import inspect
import re
from pathlib import Path

import pytest
import ray
from ray.air.execution._internal.actor_manager import RayActorManager
from ray.exceptions import OutOfMemoryError, RayActorError
from ray.tune.execution.tune_controller import TuneController
from ray.tune.experiment import Trial
from ray.tune.schedulers import TrialScheduler
from ray.tune.utils.object_cache import _ObjectCache

from orchestration.run import ray_tune

#: attributes of Tune's controller, set in its initialiser or methods; of a trial; of a scheduler
CONTROLLER = {"_resetting_trials", "_set_trial_status", "_actor_cache", "pause_trial", "stop_trial"}
TRIAL = {
    "config",
    "error_file",
    "init_local_path",
    "placement_group_factory",
    "run_metadata",
    "set_status",
    "status",
}
SCHEDULER = {"_supports_buffered_results"}
#: environment variable -> the module that reads it
VARIABLES = {
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "ray.tune.utils.callback",
    "TUNE_DISABLE_SIGINT_HANDLER": "ray.tune.tune",
    "TUNE_WARN_EXCESSIVE_EXPERIMENT_CHECKPOINT_SYNC_THRESHOLD_S": "ray.tune.execution.experiment_state",
    "RAY_AIR_NEW_OUTPUT": "ray.tune.experimental.output",
    "RAY_CHDIR_TO_TRIAL_DIR": "ray.train.constants",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "ray._private.accelerators.accelerator",
    "RAY_USAGE_STATS_ENABLED": "ray._common.usage.usage_constants",
    "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "ray._private.ray_constants",
    "RAY_JOB_CONFIG_JSON_ENV_VAR": "ray._private.runtime_env.constants",
}
UPGRADE = f"not in Ray {ray.__version__}: adapt orchestration/run, then this list and the bounds in pyproject.toml"
PACKAGE = Path(ray_tune.__file__).parent.parent


@pytest.fixture(scope="module")
def trial() -> Trial:
    return Trial("any", stub=True)


def used(variable: str) -> set[str]:
    """The attributes that orchestration/run reads of what it calls `variable`."""
    return {
        node.attr
        for path in (PACKAGE / "run").glob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == variable
    }


def test_the_lists_name_what_is_used() -> None:
    assert used("tune_controller") == CONTROLLER
    assert used("trial") - {"id", "experiment"} == TRIAL  # those two are of the sweep's own trials
    assert vars(ray_tune._TuneScheduler).keys() >= SCHEDULER


def test_every_variable_that_is_set_is_listed() -> None:
    text = "".join(path.read_text() for path in PACKAGE.rglob("*.py"))
    public = {"RAY_ADDRESS", "RAY_AUTH_MODE", "RAY_AUTH_TOKEN"}
    assert set(re.findall(r"\b(?:RAY|TUNE)_[A-Z_]+\b", text)) - public == VARIABLES.keys()


@pytest.mark.parametrize("name", sorted(CONTROLLER))
def test_the_controller_has(name: str) -> None:
    initialiser = inspect.getsource(TuneController.__init__)
    assert hasattr(TuneController, name) or re.search(rf"self\.{name}\b.* = ", initialiser), UPGRADE


def test_what_the_controllers_attributes_are() -> None:
    initialiser = inspect.getsource(TuneController.__init__)
    assert re.search(r"self\._resetting_trials: Set\[Trial\] = set\(\)", initialiser), UPGRADE
    assert re.search(r"self\._actor_cache = _ObjectCache\(", initialiser), UPGRADE
    assert list(inspect.signature(_ObjectCache.increase_max).parameters) == ["self", "key", "by"], UPGRADE
    assert list(inspect.signature(TuneController._set_trial_status).parameters) == ["self", "trial", "status"], UPGRADE
    assert "should_checkpoint" in inspect.signature(TuneController.pause_trial).parameters, UPGRADE


@pytest.mark.parametrize("name", sorted(TRIAL))
def test_a_trial_has(name: str, trial: Trial) -> None:
    assert hasattr(Trial, name) or name in vars(trial), UPGRADE


def test_a_trial_counts_its_failures_and_names_their_file(trial: Trial) -> None:
    assert trial.run_metadata.num_failures == 0, UPGRADE
    assert isinstance(Trial.error_file, property), UPGRADE
    for status in ("PENDING", "RUNNING", "PAUSED", "ERROR"):
        assert getattr(Trial, status, None) == status, UPGRADE


def test_a_task_of_a_worker_that_ray_ended_for_want_of_memory_fails_so() -> None:
    assert list(inspect.signature(RayActorManager._actor_task_failed).parameters) == [
        "self",
        "tracked_actor_task",
        "exception",
    ], UPGRADE
    assert not issubclass(OutOfMemoryError, RayActorError), "ray_tune._take_for_lost is not needed any more"


def test_tune_ends_in_good_order_on_sigusr1() -> None:
    assert "signal.signal(signal.SIGUSR1, signal_interrupt_tune_run)" in inspect.getsource(ray.tune.tune), UPGRADE


@pytest.mark.parametrize("name", sorted(SCHEDULER))
def test_a_scheduler_has(name: str) -> None:
    assert hasattr(TrialScheduler, name), UPGRADE


@pytest.mark.parametrize("name", VARIABLES)
def test_ray_reads_the_variable(name: str) -> None:
    module = importlib.import_module(VARIABLES[name])
    assert f'"{name}"' in inspect.getsource(module), UPGRADE
