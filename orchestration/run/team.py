"""The processes of a trial beside its worker: Ray actors in the other bundles of the trial's placement group.

The worker is process 0. It alone reads and writes the store, and evaluates; the others train with it what it trains. A
stage is whole or not at all: where one process is lost, all of them end, and the trial is tried again from the store.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
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
from mcit_core.training.sequence import Trainer
from mcit_core.training.stage import train_stage
from orchestration.run.node import NodeError, check_code, take_device

#: seconds in which the others have noticed that one of them has ended
GRACE = 30.0


class LostError(NodeError):
    """A process of a trial has ended, and the trial can be tried again with other ones."""


class Member:
    """One of the other processes, whose number in the team is told when it joins."""

    def __init__(self, gpus: float, code: dict[str, str], features: str) -> None:
        self.gpus, self.code, self.features = gpus, code, features
        self.team = ALONE
        self._checked = ""

    def load(self, experiment: str) -> dict[str, str]:
        """Load an experiment's model and data; returns what the last bits depend on here. Raises NodeError."""
        bench = self._open(experiment)[1]
        return numerics(bench.model.device)

    def _open(self, text: str) -> tuple[Experiment, Workbench]:
        experiment = Experiment.model_validate_json(text)
        if text != self._checked:
            take_device(self.gpus)
            check_code(experiment, self.code)
            self._checked = text
        return experiment, workbench_for(experiment, Path(self.features))

    def join(self, rank: int, size: int, meeting: tuple[str, int]) -> None:
        self.team = join(rank, size, meeting, ray.util.get_node_ip_address())

    def train(self, experiment: str, stage: int, before: bytes | None) -> None:
        """Have this process's part in training a stage."""
        try:
            state = None if before is None else StageState.from_bytes(before)
            train_stage(*self._open(experiment), stage, state, self.team)
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

    def trainer(self, experiment: str, features: str, gpus: float, code: dict[str, str]) -> Trainer:
        """What trains the stages of a trial on all of its processes. Raises what `train_stage` raises in any of them;
        LostError where one has ended, NodeError for a fault of a node."""
        return partial(self._train, experiment, partial(Member, gpus, code, features))

    def _train(
        self,
        text: str,
        member: partial[Member],
        experiment: Experiment,
        bench: Workbench,
        stage: int,
        before: StageState | None,
    ) -> tuple[StageState, Measured]:
        answers: list[ray.ObjectRef] = []
        try:
            if not self._actors:
                self._begin(text, member, experiment.train.processes, bench)
            data = None if before is None else ray.put(before.to_bytes())
            answers = [actor.train.remote(text, stage, data) for actor in self._actors]
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

    def _begin(self, text: str, member: partial[Member], size: int, bench: Workbench) -> None:
        group = ray.util.get_current_placement_group()
        if group is None or len(group.bundle_specs) != size:
            raise RuntimeError(f"train.processes is {size}, and the trial has no placement group of as many bundles")
        actor = ray.remote(member.func)
        for number, bundle in enumerate(group.bundle_specs[1:], 1):
            options = actor.options(
                num_cpus=bundle.get("CPU", 0),
                num_gpus=bundle.get("GPU", 0),
                scheduling_strategy=PlacementGroupSchedulingStrategy(group, number),
            )
            self._actors.append(options.remote(*member.args))
        own = numerics(bench.model.device)
        for found in _asked([actor.load.remote(text) for actor in self._actors]):
            if found != own:  # their projections would drift apart
                raise NodeError(f"the processes of a trial are on machines that differ: {found} and {own}")
        host = ray.util.get_node_ip_address()
        with listen(host) as listener:
            meeting = (host, listener.getsockname()[1])
            coming = [actor.join.remote(i, size, meeting) for i, actor in enumerate(self._actors, 1)]
            self._team = join(0, size, meeting, host, listener)
        _asked(coming)

    def end(self) -> None:
        """End the other processes, whatever they do."""
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
