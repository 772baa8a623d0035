"""Whole sweeps in virtual time under one integer seed: `python -m tests.support.simulation --sweeps 10000`.

The planner, the scheduler and the leases are the real ones. Workers, drivers and the disk are simulated: stages take
simulated seconds, workers die or stall, drivers die and are started again, stored stages and leases tear.
"""

from __future__ import annotations

import argparse
import heapq
import itertools
import random
import sys
import time
from collections import Counter
from collections.abc import Callable, Generator
from dataclasses import dataclass, field, replace
from functools import cache
from math import ceil
from statistics import fmean

from pydantic import JsonValue

from orchestration.keep.leases import BEAT, TTL, BeatLease, BeatLeases
from orchestration.plan.halving import Halving, race
from orchestration.plan.orders import make_orders
from orchestration.plan.scheduler import StageScheduler
from orchestration.plan.spec import HalvingRule, SweepSpec
from orchestration.plan.stage_tree import StageTree, stage_tree
from orchestration.plan.trials import Trial, make_trials

TASKS = ("attribute", "ground", "bars", "locate")
#: virtual seconds: to load a worker, to take a finished stage, until a driver notices a death, and for a whole sweep
LOAD, LOOK, NOTICE, FOREVER = 5.0, 0.1, 1.0, 2e4
RETRIES = 3
PLANS = 40

Process = Generator[float, None, None]


class Wrong(AssertionError):
    """A sweep that did not go as it must; the text says how."""


@cache
def plan(number: int) -> tuple[SweepSpec, list[Trial], StageTree]:
    """One of PLANS small sweeps."""
    rng = random.Random(number)
    tasks = TASKS[: rng.randint(1, 4)]
    axes: dict[str, list[JsonValue]] = {}
    if rng.random() < 0.5:
        axes["pool.reuse"] = ["share", "penalise", "freeze"][: rng.randint(2, 3)]
    if rng.random() < 0.5:
        axes["projection.task_energy"] = [0.5, 0.9]
    kinds: list[dict[str, str]] = [{"kind": "latin_square"}, {"kind": "reverse"}]
    kinds += [{"kind": "all"}] if len(tasks) < 4 or not axes else []
    spec = SweepSpec(
        name="s",
        benchmark="mini",
        model="mini",
        method=rng.choice(["fwd_prompt", "sequential"]) if "projection.task_energy" not in axes else "fwd_prompt",
        tasks=tasks,
        base={},
        axes=axes,
        orders=make_orders(tasks, rng.choice(kinds)),
        order_swept=True,
        orders_drawn=False,
        seeds=tuple(range(rng.randint(1, 2))),
        references=tuple(rng.sample(["zero_shot", "direct", "sequential"], rng.randint(0, 3))),
        cpus=1,
        gpus=0,
        workers=None,
        mlflow=None,
    )
    trials = make_trials(spec)
    return spec, trials, stage_tree(trials)


def score(trial: str, stages: int) -> float:
    """What a trial scores in validation after so many stages; some are equal."""
    return random.Random(f"{trial} {stages}").randint(0, 9) / 9


class Memory:
    """A folder of files in memory, as far as leases use one."""

    def __init__(self) -> None:
        self.content: dict[str, bytes] = {}

    def create(self, name: str, data: bytes) -> bytes | None:
        return data if self.content.setdefault(name, data) is data else None

    def read(self, name: str) -> bytes | None:
        return self.content.get(name)

    def read_version(self, name: str) -> tuple[bytes, bytes] | None:
        return (self.content[name], self.content[name]) if name in self.content else None

    def replace(self, name: str, data: bytes, version: bytes) -> bytes | None:
        if self.content.get(name) != version:
            return None
        self.content[name] = data
        return data

    def delete(self, name: str) -> None:
        self.content.pop(name, None)


@dataclass
class Worker:
    leases: BeatLeases
    alive: bool = True
    stalled_until: float = 0.0
    trial: str | None = None
    training: str | None = None
    lease: BeatLease | None = None


@dataclass
class Driver:
    """One run of the command: a scheduler and its workers."""

    scheduler: StageScheduler
    workers: list[Worker]
    left: set[str]
    alive: bool = True
    losses: Counter[str] = field(default_factory=Counter)
    failed: set[str] = field(default_factory=set)
    reported: set[tuple[str, int]] = field(default_factory=set)


class World:
    """Everything that happens under one seed."""

    def __init__(self, seed: int, tree: StageTree | None = None, calm: bool = False) -> None:
        self.rng = rng = random.Random(seed)
        if tree is None:
            self.spec, self.trials, self.tree = plan(rng.randrange(PLANS))
        else:
            self.trials, self.tree = [], tree
        rule = HalvingRule(rng.randint(1, 2), rng.randint(2, 3)) if tree is None and rng.random() < 0.3 else None
        if rule and len(self.spec.tasks) > rule.min_stages:
            self.spec = replace(self.spec, halving=rule)
        self.stopped = self.losers()
        #: the stages that the sweep needs
        self.needed = {
            key for trial, chain in self.tree.chains.items() for key in chain[: self.stopped.get(trial, len(chain))]
        }
        self.now = 0.0
        self._events: list[tuple[float, int, Process]] = []
        self._count = itertools.count()
        self.folder = Memory()
        self.stored: dict[str, bool] = {}  # key -> whether it is whole
        self.trained: Counter[str] = Counter()
        self.busy = 0.0
        self.deaths = self.stalls = self.torn = 0
        self.workers = rng.randint(1, 4)
        self.seconds = {key: rng.choice([1.0, 10.0, rng.uniform(1, 60)]) for key in self.tree.steps}
        faulty = rng.random() < 0.7 and not calm
        self.rates = {
            name: rng.choice([0, 0, 1 / 300, 1 / 60]) * faulty for name in ("worker", "driver", "stall", "tear")
        }
        self.fault_free_after = rng.uniform(60, 1200)
        self.unfinished = 1 if calm else rng.choice([1, 1, 2])  # commands given on this store
        self.everyone: list[Worker] = []
        for _ in range(self.unfinished):
            self.spawn(self.command(rng.choice([0.0, rng.uniform(0, 30)])))

    def halving(self) -> Halving | None:
        return race(self.spec, self.trials) if self.trials else None

    def losers(self) -> dict[str, int]:
        """The trials that halving drops, and after how many stages: rung by rung, without a scheduler."""
        halving = self.halving()
        if halving is None:
            return {}
        dropped: dict[str, int] = {}
        left = dict(halving.settings)
        for rung in halving.rule.rungs(len(self.spec.tasks)):
            values: dict[str, list[float]] = {}
            for trial, setting in left.items():
                values.setdefault(setting, []).append(score(trial, rung))
            means = {setting: fmean(scores) for setting, scores in values.items()}
            enough = ceil(len(means) / halving.rule.reduction)
            kept = [s for s, mean in means.items() if sum(other > mean for other in means.values()) < enough]
            dropped |= {trial: rung for trial, setting in left.items() if setting not in kept}
            left = {trial: setting for trial, setting in left.items() if setting in kept}
        return dropped

    def spawn(self, process: Process, after: float = 0.0) -> None:
        heapq.heappush(self._events, (self.now + after, next(self._count), process))

    def run(self) -> None:
        while self._events:
            self.now, _, process = heapq.heappop(self._events)
            if self.now > FOREVER:
                raise Wrong("the sweep does not end")
            try:
                delay = next(process)
            except StopIteration:
                continue
            heapq.heappush(self._events, (self.now + delay, next(self._count), process))
        self.check()

    def check(self) -> None:
        if self.unfinished:
            raise Wrong(f"{self.unfinished} commands did not end")
        if not self.needed <= self.trained.keys():
            raise Wrong("a stage was never trained")
        # where a trial failed, halving had another choice; elsewhere nothing is trained but what is needed
        if self.needed != self.trained.keys() and not (self.deaths and self.stopped):
            raise Wrong("a stage was trained that no trial needs")
        extra = sum(self.trained.values()) - len(self.trained)
        if extra > self.deaths + self.stalls + self.torn:
            raise Wrong(
                f"{extra} trainings too many after {self.deaths} deaths, {self.stalls} stalls, {self.torn} tears"
            )
        if self.folder.content and not self.deaths + self.stalls:
            raise Wrong("leases were left behind")

    def shortest(self) -> float:
        """Seconds that no order can beat: all work on all workers, or the longest chain."""
        chains = [sum(self.seconds[key] for key in set(chain)) for chain in self.tree.chains.values()]
        return max(sum(self.seconds.values()) / self.workers, *chains)

    def command(self, delay: float) -> Process:
        """The same command, given again until every trial has finished."""
        yield delay
        while True:
            scheduler = StageScheduler(self.tree, self.halving(), clock=lambda: self.now)
            driver = Driver(scheduler, [], set(self.tree.chains))
            for trial in self.tree.chains:
                driver.scheduler.add(trial)
            for _ in range(self.workers):
                self.hire(driver)
            for name, strike in (("driver", self.kill_driver), ("worker", self.kill_worker), ("stall", self.stall)):
                if self.rates[name]:
                    self.spawn(self.faults(driver, self.rates[name], strike))
            if self.rates["tear"]:
                self.spawn(self.faults(driver, self.rates["tear"], self.tear))
            while driver.alive and driver.left:
                yield NOTICE
            driver.alive = False
            if not driver.failed and not driver.left:
                if driver.scheduler.halving is not None and driver.scheduler.halving.stopped != self.stopped:
                    raise Wrong("halving has dropped other trials than the scores say")
                self.unfinished -= 1
                return
            yield self.rng.uniform(0, 60)

    def hire(self, driver: Driver) -> None:
        shift = self.rng.uniform(0, 1e9)  # no two monotonic clocks begin alike
        worker = Worker(BeatLeases(self.folder, clock=lambda: self.now + shift))  # type: ignore[arg-type]
        driver.workers.append(worker)
        self.everyone.append(worker)
        self.spawn(self.work(driver, worker), after=LOAD)

    def work(self, driver: Driver, worker: Worker) -> Process:
        while worker.alive and driver.left:
            self.stop(driver)
            trial = driver.scheduler.choose()
            if trial is None:
                yield LOOK
                continue
            driver.scheduler.start(trial)
            if any(other.trial == trial for other in driver.workers if other.alive):
                raise Wrong("two workers have one trial")
            worker.trial = trial
            yield from self.run_trial(driver, worker, trial)
            if worker.alive:
                worker.trial = None

    def stop(self, driver: Driver) -> None:
        """End the trials that halving has dropped."""
        if driver.scheduler.halving is not None:
            for trial in driver.scheduler.halving.stopped.keys() & driver.scheduler.places.keys():
                driver.scheduler.end(trial)
                driver.left.discard(trial)

    def run_trial(self, driver: Driver, worker: Worker, trial: str) -> Process:
        chain = self.tree.chains[trial]
        for stage, key in enumerate(chain):
            there = yield from self.stage(worker, key)
            if not worker.alive:
                return
            if not there:
                driver.scheduler.busy(trial)
                return
            driver.reported.add((trial, stage))
            if not driver.scheduler.finish(trial, stage, score(trial, stage + 1)) and stage < len(chain) - 1:
                return
        if any((trial, stage) not in driver.reported for stage in range(len(chain))):
            raise Wrong("a trial ended without one of its stages")
        driver.scheduler.end(trial)
        driver.left.discard(trial)

    def stage(self, worker: Worker, key: str) -> Generator[float, None, bool]:
        """What StageStore.stage does, in virtual time; False where another sweep trains the stage."""
        if worker.alive and not self.look(key):
            lease = worker.leases.attempt(key)
            if lease is None:
                yield LOOK
                return False
            self.spawn(self.beat(worker, lease, key), after=BEAT)
            worker.training, worker.lease = key, lease
            if not self.look(key):
                for other in self.everyone:
                    if other is not worker and other.alive and other.training == key and not other.stalled_until:
                        raise Wrong("two workers train one stage")
                self.trained[key] += 1
                self.busy += self.seconds[key]
                yield self.seconds[key]
                while worker.alive and self.now < worker.stalled_until:
                    yield worker.stalled_until - self.now
                if not worker.alive:
                    return False
                self.stored[key] = True
            worker.training = None
            lease.release()
            return True
        yield LOOK
        return True

    def look(self, key: str) -> bool:
        """Whether a stage is stored; a damaged one is set aside."""
        if self.stored.get(key) is False:
            del self.stored[key]
        return key in self.stored

    def beat(self, worker: Worker, lease: BeatLease, key: str) -> Process:
        while worker.alive and worker.training == key:
            if self.now >= worker.stalled_until and not lease.beat():
                return
            yield BEAT

    def faults(self, driver: Driver, rate: float, strike: Callable[[Driver], None]) -> Process:
        while True:
            yield self.rng.expovariate(rate)
            if not driver.alive or self.now > self.fault_free_after:
                return
            strike(driver)

    def kill_worker(self, driver: Driver) -> None:
        living = [worker for worker in driver.workers if worker.alive]
        if living:
            victim = self.rng.choice(living)
            self.die(victim)
            self.spawn(self.notice(driver, victim), after=NOTICE)

    def die(self, worker: Worker) -> None:
        worker.alive = False
        self.deaths += 1
        name = f"leases/{worker.training}.json"
        if worker.training and worker.lease and worker.lease.mine() and self.rng.random() < 0.2:
            self.folder.content[name] = self.folder.content[name][: self.rng.randrange(60)]

    def notice(self, driver: Driver, victim: Worker) -> Process:
        trial = victim.trial
        if driver.alive:
            if trial is not None and trial in driver.scheduler.places:
                driver.losses[trial] += 1
                if driver.losses[trial] > RETRIES:
                    driver.scheduler.end(trial)
                    driver.failed.add(trial)
                    driver.left.discard(trial)
                else:
                    driver.scheduler.lose(trial)
            self.hire(driver)
        return
        yield

    def kill_driver(self, driver: Driver) -> None:
        driver.alive = False
        for worker in driver.workers:
            if worker.alive:
                self.die(worker)

    def stall(self, driver: Driver) -> None:
        living = [worker for worker in driver.workers if worker.alive and worker.training]
        if living:
            self.rng.choice(living).stalled_until = self.now + self.rng.uniform(0, 3 * TTL)
            self.stalls += 1

    def tear(self, driver: Driver) -> None:
        if self.stored:
            self.stored[self.rng.choice(sorted(self.stored))] = False
            self.torn += 1


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.support.simulation", description=__doc__)
    parser.add_argument("--sweeps", type=int, default=10000)
    parser.add_argument("--first-seed", type=int, default=0)
    args = parser.parse_args()
    begun = time.monotonic()
    total: Counter[str] = Counter()
    idle: list[float] = []
    possible: list[float] = []
    for seed in range(args.first_seed, args.first_seed + args.sweeps):
        world = World(seed)
        calm = not any(world.rates.values())
        alone = world.unfinished == 1
        try:
            world.run()
        except Wrong as error:
            print(f"seed {seed}: {error}")
            return 1
        trained, distinct = sum(world.trained.values()), len(world.needed)
        total["stages without sharing"] += sum(map(len, world.tree.chains.values()))
        total["distinct stages"] += distinct
        total["trained"] += trained
        for name in ("deaths", "stalls", "torn"):
            total[name] += getattr(world, name)
        total["sweeps without a fault"] += calm
        total["of those, trained exactly the distinct stages"] += calm and trained == distinct
        total["sweeps with halving"] += bool(world.stopped)
        if calm and alone and trained >= 16 and not world.stopped:
            idle.append(world.busy / (world.workers * (world.now - LOAD)))
            possible.append(world.shortest() / (world.now - LOAD))
    print(f"{args.sweeps} sweeps in {time.monotonic() - begun:.1f} s, none went wrong")
    for name, value in total.items():
        print(f"{name}: {value}")
    if idle:
        print(
            f"{len(idle)} calm sweeps of 16 stages or more: workers busy {sum(idle) / len(idle):.3f} of the time on "
            f"average, {min(idle):.3f} at least; no order of stages can take less than {sum(possible) / len(idle):.3f} "
            f"of the time they took, on average, {min(possible):.3f} at least"
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
