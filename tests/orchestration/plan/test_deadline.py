"""How long a plan takes on workers, in virtual time; golden values by hand."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestration.plan.deadline import fewest_workers, wall_seconds
from orchestration.plan.stage_tree import StageTree
from tests.support.scheduling import random_tree


def tree_of(**chains: str) -> StageTree:
    """Sequences by name, their stages as letters, equal beginnings shared."""
    tree = StageTree({}, {}, {})
    for trial, letters in chains.items():
        keys = [letters[: i + 1] for i in range(len(letters))]
        tree.chains[trial] = keys
        tree.steps.update(dict.fromkeys(keys, 1))
        tree.parents.update(zip(keys, [None, *keys], strict=False))
    return tree


#: t1 and t2 share their first stage; 10 s a stage, so 50 s of work, and 20 s is the longest chain
TREE = tree_of(t1="ab", t2="ac", t3="xy")
TEN = dict.fromkeys(TREE.steps, 10.0)


@pytest.mark.parametrize(("workers", "wall"), [(1, 50.0), (2, 30.0), (3, 20.0), (9, 20.0)])
def test_by_hand(workers: int, wall: float) -> None:
    assert wall_seconds(TREE, TEN, workers) == wall


def test_what_comes_before_is_shared_by_the_workers() -> None:
    assert wall_seconds(TREE, TEN, 2, begin=8.0) == 34.0


def test_stored_stages_take_no_time() -> None:
    assert wall_seconds(TREE, {**TEN, "a": 0.0}, 1) == 40.0
    assert wall_seconds(TREE, dict.fromkeys(TEN, 0.0), 1) == 0.0
    assert wall_seconds(StageTree({"zero_shot": []}, {}, {}), {}, 2, begin=3.0) == 1.5


@pytest.mark.parametrize(
    ("deadline", "fewest"), [(50.0, (1, 50.0)), (49.0, (2, 30.0)), (30.0, (2, 30.0)), (29.0, (3, 20.0)), (19.0, None)]
)
def test_the_fewest_for_a_deadline(deadline: float, fewest: tuple[int, float] | None) -> None:
    assert fewest_workers(TREE, TEN, deadline) == fewest


@settings(max_examples=60)
@given(st.integers(0, 10**6), st.integers(1, 12), st.floats(0.05, 1.2))
def test_one_worker_fewer_is_too_late_and_no_bound_is_beaten(seed: int, trials: int, share: float) -> None:
    rng = random.Random(seed)
    tree = random_tree(rng, trials, 3, 2)
    seconds = {key: rng.choice([0.0, 1.0, rng.uniform(0, 60)]) for key in tree.steps}
    work, begin = sum(seconds.values()), rng.choice([0.0, 5.0])
    assert wall_seconds(tree, seconds, 1, begin) == pytest.approx(work + begin)
    deadline = share * (work + begin) + 0.01
    found = fewest_workers(tree, seconds, deadline, begin)
    if found is None:
        assert wall_seconds(tree, seconds, trials, begin) > deadline
        return
    workers, wall = found
    assert wall == wall_seconds(tree, seconds, workers, begin) <= deadline
    assert wall >= (work + begin) / workers - 1e-6
    assert workers == 1 or wall_seconds(tree, seconds, workers - 1, begin) > deadline
