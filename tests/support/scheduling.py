"""The scheduler's choice by looking at every trial, which is plain and slow: what its heap is held against."""

from __future__ import annotations

import math
import random
from collections.abc import Set

from orchestration.plan.scheduler import StageScheduler
from orchestration.plan.stage_tree import StageTree


def plain_choice(stages: StageScheduler, elsewhere: Set[str] = frozenset()) -> str | None:
    """`elsewhere`: the stages that other sweeps are taken to train."""
    now = stages.clock()
    claimed = {place.claim for place in stages.places.values()} | elsewhere
    best, best_rank = None, (-math.inf, 0.0, 0.0)
    for trial, place in stages.places.items():
        held = stages.halving is not None and stages.halving.held(trial)
        if trial in stages.running or place.not_before > now or held:
            continue
        left = [key for key in place.chain if key not in stages.done]
        if left and left[0] in claimed:
            continue
        unlocks = stages.unlocks[left[0]] if left else 0.0
        rank = (-place.first, unlocks, float(sum(stages.tree.steps[key] for key in left)))
        if rank > best_rank:
            best, best_rank = trial, rank
    return best


def grow(tree: StageTree, whole: StageTree, trial: str) -> list[str]:
    """Have a tree take up a trial of another one; returns the stages that are new."""
    new = [key for key in whole.chains[trial] if key not in tree.steps]
    tree.chains[trial] = whole.chains[trial]
    tree.steps.update({key: whole.steps[key] for key in new})
    tree.parents.update({key: whole.parents[key] for key in new})
    return new


def random_tree(rng: random.Random, trials: int, stages: int, branches: int) -> StageTree:
    """Sequences that share their beginnings, and trials of separate stages that are first stages of sequences too."""
    tree = StageTree({}, {}, {})
    for number in range(trials):
        letters = [str(rng.randrange(branches)) for _ in range(stages)]
        alone = rng.random() < 0.2
        keys = [letters[i] if alone else "/".join(letters[: i + 1]) for i in range(stages)]
        tree.chains[f"t{number}"] = keys
        for i, key in enumerate(keys):
            tree.steps.setdefault(key, rng.choice([1, 1, 7]))
            tree.parents.setdefault(key, None if alone or i == 0 else keys[i - 1])
    return tree
