"""The processes of a trial beside its worker: Ray actors in the other bundles of the trial's placement group.

The worker is process 0. It alone reads and writes the store, and evaluates; the others train with it what it trains. A
stage is whole or not at all: where one process is lost, all of them end, and the trial is tried again from the store.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ray
from ray.exceptions import RayError, RayTaskError
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

from mcit_core.config import Experiment
from mcit_core.data.workbench import Workbench, drop_workbenches, workbench_for
from mcit_core.parallel import ALONE, PeerError, Team, join, leave, listen
from mcit_core.stages.numerics import numerics
from mcit_core.stages.results import Measured
from mcit_core.stages.state import StageState
from mcit_core.training.stage import train_stage
from orchestration.run.node import NodeError, check_code, take_device

#: seconds in which the others have noticed that one of them has ended
GRACE = 30.0


@dataclass(frozen=True)
class Job:
    """What the other processes need of a trial: its experiment as JSON, the folder of features, how many GPUs each of
    them was given, and the driver's code and versions."""

    experiment: str
    features: str
    gpus: float
    code: dict[str, str]

    def open(self) -> tuple[Experiment, Workbench]:
        """In such a process. Raises NodeError."""
        take_device(self.gpus)
        experiment = Experiment.model_validate_json(self.experiment)
        check_code(experiment, self.code)
        return experiment, workbench_for(experiment, Path(self.features))


class LostError(NodeError):
    """A process of a trial has ended, and the trial can be tried again with other ones."""


class Member:
    """One of the other processes, whose number in the team is told when it joins."""

    def __init__(self) -> None:
        self.team = ALONE

    def load(self, job: Job) -> dict[str, str]:
        """Load a trial's model and data; returns what the last bits depend on here. Raises NodeError."""
        return numerics(job.open()[1].model.device)

    def join(self, rank: int, size: int, meeting: tuple[str, int]) -> None:
        self.team = join(rank, size, meeting, ray.util.get_node_ip_address())

    def train(self, job: Job, stage: int, before: bytes | None) -> None:
        """Have this process's part in training a stage."""
        try:
            state = None if before is None else StageState.from_bytes(before)
            train_stage(*job.open(), stage, state, self.team)
        except Exception:
            leave()  # or else the others wait for it
            drop_workbenches()
            raise


class Members:
    """The other processes of this worker's trials. They begin with the first stage that is to be trained, and stay for
    the next trials."""

    def __init__(self) -> None:
        self._team: Team = ALONE
        self._actors: list[Any] = []

    def train_stage(
        self, job: Job, experiment: Experiment, bench: Workbench, stage: int, before: StageState | None
    ) -> tuple[StageState, Measured]:
        """Train a stage of a trial on all of its processes. Raises what any of them raises; LostError where one has
        ended, NodeError for a fault of a node."""
        answers: list[ray.ObjectRef] = []
        try:
            if not self._actors:
                self._begin(job, experiment.train.processes, bench)
            data = None if before is None else ray.put(before.to_bytes())
            answers = [actor.train.remote(job, stage, data) for actor in self._actors]
            trained = train_stage(experiment, bench, stage, before, self._team)
            _asked(answers)
        except PeerError as error:
            why = _why(answers, error)
            self.end()
            raise why from error
        except BaseException:
            self.end()
            raise
        return trained

    def _begin(self, job: Job, size: int, bench: Workbench) -> None:
        group = ray.util.get_current_placement_group()
        if group is None or len(group.bundle_specs) != size:
            raise RuntimeError(f"train.processes is {size}, and the trial has no placement group of as many bundles")
        member = ray.remote(Member)
        for number, bundle in enumerate(group.bundle_specs[1:], 1):
            placed = member.options(
                num_cpus=bundle.get("CPU", 0),
                num_gpus=bundle.get("GPU", 0),
                scheduling_strategy=PlacementGroupSchedulingStrategy(group, number),
            )
            self._actors.append(placed.remote())
        own = numerics(bench.model.device)
        for found in _asked([actor.load.remote(job) for actor in self._actors]):
            if found != own:  # their projections would drift apart
                raise NodeError(
                    f"the processes of a trial are on machines that calculate differently: {found} and {own}; join "
                    "nodes of one kind, or set resources.processes to as many as one node has room for"
                )
        host = ray.util.get_node_ip_address()
        with listen(host) as listener:
            meeting = (host, listener.getsockname()[1])
            coming = [actor.join.remote(i, size, meeting) for i, actor in enumerate(self._actors, 1)]
            try:
                self._team = join(0, size, meeting, host, listener)
            except PeerError as error:
                raise _why(coming, error) from error
        _asked(coming)

    def end(self) -> None:
        """End the other processes, whatever they do."""
        if not self._actors:
            return
        for actor in self._actors:
            ray.kill(actor)
        self._actors, self._team = [], ALONE
        leave()


def _asked(answers: Sequence[ray.ObjectRef]) -> list[Any]:
    """What the others answer. Raises what one of them raised, and LostError where one has ended."""
    try:
        found: list[Any] = ray.get(list(answers))
    except RayTaskError as error:
        raise _cause(error) from error
    except RayError as error:
        raise LostError(f"a process of the trial has ended: {error}") from error
    return found


def _cause(error: RayTaskError) -> Exception:
    return error.cause if isinstance(error.cause, Exception) else error


def _why(answers: Sequence[ray.ObjectRef], lost: PeerError) -> Exception:
    """Why the team broke up while this process trained: what another one raised, or else that one has ended."""
    ended: Exception = LostError(str(lost))
    for answer in ray.wait(list(answers), num_returns=len(answers), timeout=GRACE)[0] if answers else []:
        try:
            _asked([answer])
        except LostError as error:
            ended = error
        except PeerError:
            continue
        except Exception as error:
            return error
    return ended


#: those of this worker
MEMBERS = Members()
