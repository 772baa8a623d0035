"""Which trial runs next, so that no two workers train one stage and the stage that most work waits for comes first.

Only decisions are made here; `orchestration.run.ray_tune` hands them to Ray Tune, the simulation to workers of its own.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field

from orchestration.plan.halving import Halving
from orchestration.plan.stage_tree import StageTree

#: seconds before a trial whose worker was lost is tried again; then twice as many, each time
BACK_OFF = 2.0


@dataclass
class _Place:
    """Where a trial stands: the stages of its chain, the one it is to train (claimed), when it may start again."""

    chain: list[str]
    claim: str | None = None
    running: bool = False
    not_before: float = 0.0
    lost: int = 0


@dataclass
class StageScheduler:
    """Trials as chains of stage keys; `tree` has all of them.

    A trial claims the first unfinished stage of its chain when it starts, and the next one when that is done. It goes
    through finished stages quickly, whoever trained them.
    """

    tree: StageTree
    halving: Halving | None = None
    clock: Callable[[], float] = time.monotonic
    done: set[str] = field(default_factory=set)
    places: dict[str, _Place] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._claimed: dict[str, str] = {}
        #: unfinished work in the stages that can only follow a stage, itself included
        self.unlocks = dict.fromkeys(self.tree.steps, 0.0)
        for key, cost in self.tree.steps.items():
            self._add(key, cost)

    def _add(self, key: str | None, cost: float) -> None:
        while key is not None:
            self.unlocks[key] += cost
            key = self.tree.parents[key]

    def add(self, trial: str) -> None:
        self.places[trial] = _Place(self.tree.chains[trial])

    def _held(self, trial: str) -> bool:
        return self.halving is not None and self.halving.held(trial)

    def _next(self, place: _Place) -> str | None:
        return next((key for key in place.chain if key not in self.done), None)

    def choose(self) -> str | None:
        """The waiting trial to start now: the one whose next stage unlocks most work, then with most work of its own,
        then the one that was added first. None where every next stage is being trained."""
        now = self.clock()
        best, best_rank = None, (-1.0, -1.0)
        for trial, place in self.places.items():
            if place.running or place.not_before > now or self._held(trial):
                continue
            key = self._next(place)
            if key is None:
                rank = (0.0, 0.0)
            elif key in self._claimed:
                continue
            else:
                rank = (self.unlocks[key], sum(self.tree.steps[k] for k in place.chain if k not in self.done))
            if rank > best_rank:
                best, best_rank = trial, rank
        return best

    def start(self, trial: str) -> None:
        """`trial` gets a worker."""
        place = self.places[trial]
        place.running = True
        self._claim(trial, place)

    def _claim(self, trial: str, place: _Place) -> bool:
        key = self._next(place)
        if key is None:
            return True
        if self._claimed.setdefault(key, trial) != trial:
            return False
        place.claim = key
        return True

    def finish(self, trial: str, stage: int, score: float = 0.0) -> bool:
        """`trial` has finished the stage at this position of its chain, with this score for `halving`. True: it goes on
        with the next one. False: that one is being trained elsewhere, or it is not decided whether the trial goes on;
        the trial waits and its worker is free."""
        place = self.places[trial]
        key = place.chain[stage]
        if key not in self.done:
            self.done.add(key)
            self._add(key, -self.tree.steps[key])
        if self.halving is not None:
            self.halving.reach(trial, stage + 1, score)
            if self.halving.held(trial):
                self._release(place)
                place.running = False
                return False
        if place.claim is not None and place.claim not in self.done:
            return True  # on its way through finished stages
        self._release(place)
        if self._claim(trial, place):
            return True
        place.running = False
        return False

    def lose(self, trial: str) -> None:
        """The worker of `trial` was lost, and it is to be tried again: after a while, a longer one each time."""
        place = self.places[trial]
        self._release(place)
        place.running = False
        place.lost += 1
        place.not_before = self.clock() + BACK_OFF * 2 ** (place.lost - 1)

    def end(self, trial: str) -> None:
        """`trial` is finished, failed or stopped."""
        self._release(self.places.pop(trial))
        if self.halving is not None:
            self.halving.leave(trial)

    def _release(self, place: _Place) -> None:
        if place.claim is not None:
            self._claimed.pop(place.claim, None)
            place.claim = None
