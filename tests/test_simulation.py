"""A short list of simulated sweeps; `python -m tests.simulation --sweeps 10000` runs many."""

from __future__ import annotations

import pytest
from simulation import World


@pytest.mark.parametrize("first", range(0, 200, 50))
def test_simulated_sweeps_lose_nothing_and_train_nothing_twice(first: int) -> None:
    for seed in range(first, first + 50):
        world = World(seed)
        calm = not any(world.rates.values())
        world.run()  # raises Wrong
        if calm:
            assert world.trained.keys() == world.tree.steps.keys(), seed
            assert set(world.trained.values()) == {1} or not world.trained, seed


def test_a_seed_replays() -> None:
    def story(seed: int) -> tuple[object, ...]:
        world = World(seed)
        world.run()
        return world.now, world.trained, world.deaths, world.stalls, world.torn

    assert [story(seed) for seed in range(20)] == [story(seed) for seed in range(20)]
