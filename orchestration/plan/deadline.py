"""How long a plan takes on so many workers, by the scheduler that runs it, in virtual time."""

from __future__ import annotations

import heapq
import math
from collections.abc import Mapping

from orchestration.plan.scheduler import StageScheduler
from orchestration.plan.stage_tree import StageTree


def wall_seconds(tree: StageTree, seconds: Mapping[str, float], workers: int, begin: float = 0.0) -> float:
    """Seconds until the last trial ends. `seconds`: of each stage, 0 of what is stored. `begin`: a worker's seconds of
    what comes before all stages, which the workers share. What starting Ray and loading a model take is left out."""
    now = begin / workers
    scheduler = StageScheduler(tree, clock=lambda: now)
    events: list[tuple[float, int, str, int]] = []  # when, number, trial, stage that is done then
    number, free = 0, workers

    def go_on(trial: str, stage: int) -> bool:
        """Whether the trial keeps its worker, which is at work on `stage` of it or a later one."""
        nonlocal number
        chain = tree.chains[trial]
        while stage < len(chain) and chain[stage] in scheduler.done:
            if not scheduler.finish(trial, stage) and stage < len(chain) - 1:
                return False
            stage += 1
        if stage == len(chain):
            scheduler.end(trial)
            return False
        heapq.heappush(events, (now + seconds[chain[stage]], number, trial, stage))
        number += 1
        return True

    for trial in tree.chains:
        scheduler.add(trial)
    while True:
        while free and (chosen := scheduler.choose()) is not None:
            scheduler.start(chosen)
            free -= go_on(chosen, 0)
        if not events:
            return now
        now, _, trial, stage = heapq.heappop(events)
        stays = scheduler.finish(trial, stage)
        if stage == len(tree.chains[trial]) - 1:
            scheduler.end(trial)
            free += 1
        elif not stays or not go_on(trial, stage + 1):
            free += 1


def fewest_workers(
    tree: StageTree, seconds: Mapping[str, float], deadline: float, begin: float = 0.0
) -> tuple[int, float] | None:
    """The fewest workers that are done by `deadline` seconds, with the seconds that they take; one fewer is not. None
    where even a worker for each trial is not."""
    work = sum(seconds[key] for key in tree.steps) + begin
    most = max(len(tree.chains), 1)
    low, high = max(math.ceil(work / deadline - 1e-9), 1) - 1, most  # with `low` there are too few
    taken = wall_seconds(tree, seconds, most, begin)
    if taken > deadline or low >= most:
        return None
    while high - low > 1:
        middle = (low + high) // 2
        found = wall_seconds(tree, seconds, middle, begin)
        if found <= deadline:
            high, taken = middle, found
        else:
            low = middle
    return high, taken
