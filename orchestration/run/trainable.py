"""The Ray Tune trainable: one step() is one stage; a worker that changes trial keeps model and features loaded."""

from __future__ import annotations

import errno
import os
import platform
import traceback
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import TypedDict

import torch
from ray import tune

from mcit_core.config import Experiment
from mcit_core.data.workbench import drop_workbenches, workbench_for
from mcit_core.stages.results import StageResult
from mcit_core.training.sequence import Sequence as TaskSequence  # not the one of collections.abc
from orchestration.keep.files import UnreachableError
from orchestration.keep.stage_store import BusyError, StageStore
from orchestration.run.from_store import code_of, trial_key


class TrialConfig(TypedDict):
    """A trial as Tune hands it to a worker: its id, its experiment as JSON, the folder of features, the stage store,
    how many GPUs it was given, and the driver's code and versions (see `code_of`)."""

    trial: str
    experiment: str
    features: str
    stages: str
    gpus: float
    code: dict[str, str]


class NodeError(RuntimeError):
    """What is wrong with a node, and no fault of the trial: other code or versions than the driver's, under which it
    would train under other keys; no GPU where trials are given one."""


def check_code(experiment: Experiment, wanted: Mapping[str, str]) -> None:
    """Raises NodeError, naming what differs."""
    found = code_of(experiment)
    other = [name for name in sorted({*wanted, *found}) if wanted.get(name) != found.get(name)]
    if other:
        parts = [f"{name} {found.get(name, 'missing')} here, {wanted.get(name, 'missing')} there" for name in other[:5]]
        more = f" and {len(other) - 5} more" if len(other) > 5 else ""
        raise NodeError(
            f"{platform.node()} has other code or versions than the sweep's driver ({'; '.join(parts)}{more}): install "
            "the same on every node"
        )


#: faults of a network file system or of the connection to it, which another node may not have
GONE = ("ESTALE", "EREMOTEIO", "ENOTCONN", "ETIMEDOUT", "ECONNRESET", "EHOSTUNREACH")
UNREACHABLE = {getattr(errno, name) for name in GONE if hasattr(errno, name)}


def is_node_fault(error: BaseException | None) -> bool:
    """Whether an error is of the worker's machine and not of the trial: a GPU that has failed (its process can use it
    no more), a file system that has gone, a store that does not answer, other code. Out of memory is of the trial."""
    if error is None:
        return False
    if isinstance(error, NodeError | UnreachableError):
        return True
    if isinstance(error, OSError) and error.errno in UNREACHABLE:
        return True
    out_of_memory = "out of memory" in str(error)
    return (isinstance(error, RuntimeError) and "CUDA error" in str(error) and not out_of_memory) or is_node_fault(
        error.__cause__
    )


#: bytes of a GPU's memory that a process on it takes beside its tensors
CONTEXT = 10**9


def take_device(gpus: float) -> None:
    """Have torch use what the trial was given: no GPU where that is none, of a part of one the same part of its memory.
    Raises NodeError where it was given one and torch sees none."""
    if not gpus:
        os.environ["CUDA_VISIBLE_DEVICES"] = ""
    elif not torch.cuda.is_available():
        raise NodeError(
            f"resources.gpus is {gpus:g}, and torch {torch.__version__} sees no GPU in this worker: install a build of "
            "torch for this machine's GPUs, or set resources.gpus to 0"
        )
    elif gpus < 1:  # so that a trial that asks for too much ends itself and not its neighbour
        total = torch.cuda.get_device_properties(0).total_memory
        torch.cuda.set_per_process_memory_fraction(max(gpus - CONTEXT / total, 0.0))


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
            sequence = TaskSequence(experiment, bench, store_at(self._config["stages"]))
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
