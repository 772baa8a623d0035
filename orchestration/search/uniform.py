"""Points that no result leads to: drawn at random, and in an even sequence."""

from __future__ import annotations

import random
from collections.abc import Iterator
from functools import cache

from mcit_core.stages.digest import digest
from orchestration.plan.space import Point, Space
from orchestration.search import Proposal, Search
from orchestration.search.settings import SearchSettings


class Random(Search):
    """Bergstra & Bengio, "Random search for hyper-parameter optimization" (JMLR 2012)."""

    def __init__(self, settings: SearchSettings, space: Space) -> None:
        super().__init__(settings, space)
        self.settings = settings

    def propose(self, batch: int) -> list[Proposal]:
        draws = cache(self.draws)
        return self.filled(
            batch, self.settings.batch, self.settings.seed, lambda number: Proposal(number, batch, next(draws(number)))
        )

    def draws(self, number: int) -> Iterator[Point]:
        """Points for the setting of this number, without end."""
        rng = random.Random(digest([self.settings.seed, number, "random"]))
        while True:
            yield self.space.at([rng.random() for _ in self.space.axes])


class Sobol(Random):
    """Sobol's sequence with Owen's scrambling (1998), as scipy has it: its point n is setting n. Where that makes no
    sense or stood before, one at random takes its place."""

    def draws(self, number: int) -> Iterator[Point]:
        from scipy.stats import qmc  # takes a second to load

        sequence = qmc.Sobol(len(self.space.axes), rng=self.settings.seed)
        if number:
            sequence.fast_forward(number)
        yield self.space.at(sequence.random(1)[0].tolist())
        yield from super().draws(number)
