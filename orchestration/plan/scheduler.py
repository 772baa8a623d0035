"""Which trial runs next, so that no two workers train one stage and the stage that most work waits for comes first.

Only decisions are made here; `orchestration.run.ray_tune` hands them to Ray Tune, the simulation to workers of its own.
"""

from __future__ import annotations

import heapq
import itertools
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

from orchestration.plan.halving import Race
from orchestration.plan.stage_tree import StageTree

#: seconds before a trial whose worker was lost is tried again; then twice as many, each time
BACK_OFF = 2.0
#: seconds before a stage is tried again that another sweep trains
BUSY = 5.0
#: who has claimed such a stage
ELSEWHERE = ""


@dataclass
class _Place:
    """Where a trial stands: the stages of its chain, what it ranks by first (the less the better), the stage it is to
    train (claimed), when it may start again.
    `ticket` changes whenever the trial begins to wait or stops waiting, so that older entries of it can be told."""

    chain: list[str]
    number: int
    first: int
    ticket: int = -1
    claim: str | None = None
    not_before: float = 0.0
    lost: int = 0


@dataclass
class StageScheduler:
    """Trials as chains of stage keys; `tree` has all that were added, and may grow.

    A trial claims the first unfinished stage of its chain when it starts, and the next one when that is done. It goes
    through finished stages quickly, whoever trained them.

    Waiting trials stand in a heap, and are ranked anew when their next stage is done. What the heap says of one may
    be out of date by then only in that it has less work of its own, so that the first entry which is up to date is the
    best; a decision costs the logarithm of the trials.
    """

    tree: StageTree
    halving: Race | None = None
    clock: Callable[[], float] = time.monotonic
    done: set[str] = field(default_factory=set)
    places: dict[str, _Place] = field(default_factory=dict)
    running: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        self._claimed: dict[str, str] = {}
        self._numbers, self._tickets = itertools.count(), itertools.count()
        self._ready: list[tuple[int, float, float, int, int, str]] = []  # rank, number, ticket, trial: the best first
        self._later: list[tuple[float, int, str]] = []  # when, ticket, trial
        self._before: dict[str, list[tuple[int, str]]] = {}  # stage -> ticket, trial of those that wait to train it
        self._elsewhere: deque[tuple[float, str]] = deque()  # until when, a stage that another sweep trains
        self._held: list[tuple[int, str]] = []  # ticket, trial; by halving
        #: unfinished work in the stages that can only follow a stage, itself included
        self.unlocks: dict[str, float] = {}
        self.extend([*self.tree.steps])

    def extend(self, new: list[str]) -> None:
        """Take up stages that the tree has come to have. What they follow from unlocks more now, so that the trials
        which wait for it are ranked anew."""
        self.unlocks |= dict.fromkeys(new, 0.0)
        changed: dict[str, None] = {}
        for key in new:
            if key not in self.done:
                changed |= dict.fromkeys(self._add(key, self.tree.steps[key]))
        for key in changed:
            self._wait_again(self._before.pop(key, []))

    def _add(self, key: str | None, cost: float) -> list[str]:
        """Add to what a stage and those that it follows from unlock; returns them."""
        found = []
        while key is not None:
            self.unlocks[key] += cost
            found.append(key)
            key = self.tree.parents[key]
        return found

    def add(self, trial: str, first: int = 0) -> None:
        """`first`: trials for which it is less come before the others, as those of a search's earlier batches do."""
        place = self.places[trial] = _Place(self.tree.chains[trial], next(self._numbers), first)
        self._wait(trial, place)

    def _next(self, place: _Place) -> str | None:
        return next((key for key in place.chain if key not in self.done), None)

    def _rank(self, place: _Place) -> tuple[int, float, float]:
        """What comes first, what its next stage unlocks, then the work of its own, the last two negative: the smallest
        is the best."""
        key = self._next(place)
        if key is None:
            return place.first, 0.0, 0.0
        return (
            place.first,
            -self.unlocks[key],
            -float(sum(self.tree.steps[k] for k in place.chain if k not in self.done)),
        )

    def _wait(self, trial: str, place: _Place) -> None:
        """`trial` may be chosen, now or once it may start again."""
        place.ticket = next(self._tickets)
        if place.not_before > self.clock():
            heapq.heappush(self._later, (place.not_before, place.ticket, trial))
            return
        key = self._next(place)
        if key is not None:
            self._before.setdefault(key, []).append((place.ticket, trial))
        if key not in self._claimed:
            heapq.heappush(self._ready, (*self._rank(place), place.number, place.ticket, trial))

    def _wait_again(self, entries: list[tuple[int, str]]) -> None:
        """Those of the entries that still wait."""
        for ticket, trial in entries:
            place = self.places.get(trial)
            if place is not None and place.ticket == ticket:
                self._wait(trial, place)

    def choose(self) -> str | None:
        """The waiting trial to start now: the one whose next stage unlocks most work, then with most work of its own,
        then the one that was added first. None where every next stage is being trained."""
        now = self.clock()
        while self._elsewhere and self._elsewhere[0][0] <= now:
            self._free(self._elsewhere.popleft()[1])
        while self._later and self._later[0][0] <= now:
            _, ticket, trial = heapq.heappop(self._later)
            self._wait_again([(ticket, trial)])
        while self._ready:
            *rank, number, ticket, trial = self._ready[0]
            place = self.places.get(trial)
            if place is None or place.ticket != ticket:
                heapq.heappop(self._ready)
            elif self.halving is not None and self.halving.held(trial):
                heapq.heappop(self._ready)
                self._held.append((ticket, trial))
            elif self._next(place) in self._claimed:
                heapq.heappop(self._ready)
            elif self._rank(place) != tuple(rank):
                heapq.heapreplace(self._ready, (*self._rank(place), number, ticket, trial))
            else:
                return trial
        return None

    def start(self, trial: str) -> None:
        """`trial` gets a worker."""
        place = self.places[trial]
        place.ticket = next(self._tickets)
        self.running.add(trial)
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
            if self.halving.reach(trial, stage + 1, score):
                self._race_on()
            if self.halving.held(trial):
                self._stand_back(trial, place)
                return False
        if place.claim is not None and place.claim not in self.done:
            return True  # on its way through finished stages
        self._release(place)
        if self._claim(trial, place):
            return True
        self._stand_back(trial, place)
        return False

    def _stand_back(self, trial: str, place: _Place) -> None:
        self._release(place)
        self.running.discard(trial)
        self._wait(trial, place)

    def _race_on(self) -> None:
        held, self._held = self._held, []
        self._wait_again(held)

    def busy(self, trial: str) -> None:
        """Another sweep trains the stage that `trial` is to train: its worker is free, and the stage is tried again
        after a while, by one trial."""
        place = self.places[trial]
        if place.claim is not None:
            self._claimed[place.claim] = ELSEWHERE
            self._elsewhere.append((self.clock() + BUSY, place.claim))
            place.claim = None
        self._stand_back(trial, place)

    def lose(self, trial: str) -> None:
        """The worker of `trial` was lost, and it is to be tried again: after a while, a longer one each time."""
        place = self.places[trial]
        place.lost += 1
        place.not_before = self.clock() + BACK_OFF * 2 ** (place.lost - 1)
        self._stand_back(trial, place)

    def end(self, trial: str) -> None:
        """`trial` is finished, failed or stopped."""
        self.running.discard(trial)
        self._release(self.places.pop(trial))
        if self.halving is not None and self.halving.leave(trial):
            self._race_on()

    def _release(self, place: _Place) -> None:
        if place.claim is not None:
            self._free(place.claim)
            place.claim = None

    def _free(self, key: str) -> None:
        self._claimed.pop(key, None)
        self._wait_again(self._before.pop(key, []))
