"""A short list of simulated sweeps; `python -m tests.support.simulation --sweeps 10000` runs many."""

from __future__ import annotations

import pytest

from orchestration.plan.stage_tree import StageTree
from tests.support.simulation import LOAD, World


@pytest.mark.parametrize("first", range(0, 200, 50))
def test_simulated_sweeps_lose_nothing_and_train_nothing_twice(first: int) -> None:
    for seed in range(first, first + 50):
        world = World(seed)
        calm = not any(world.rates.values())
        world.run()  # raises Wrong
        if calm:
            assert world.trained.keys() == world.needed, seed
            assert set(world.trained.values()) == {1} or not world.trained, seed


def test_a_seed_replays() -> None:
    def story(seed: int) -> tuple[object, ...]:
        world = World(seed)
        world.run()
        return world.now, world.trained, world.deaths, world.stalls, world.torn

    assert [story(seed) for seed in range(20)] == [story(seed) for seed in range(20)]


def test_two_workers_are_busy_nine_tenths_of_sixteen_trials_of_four_stages() -> None:
    tree = StageTree({}, {}, {})
    for trial in range(16):
        keys = [f"{trial // 4 if stage == 0 else trial}.{stage}" for stage in range(4)]
        tree.chains[f"t{trial}"] = keys
        tree.steps.update(dict.fromkeys(keys, 1))
        tree.parents.update(zip(keys, [None, *keys], strict=False))
    world = World(0, tree, calm=True)
    world.workers = 2
    world.seconds = {key: 10.0 + 5 * (int(key[0])) for key in tree.steps}
    world.run()
    assert world.busy / (2 * (world.now - LOAD)) > 0.9
