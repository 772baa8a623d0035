"""How a sweep chooses its settings: the contract. A search proposes settings in batches and is told how they did.

Which batch is proposed from which results is not its business (see `orchestration.search.course`): what it proposes
must follow from its settings, its space, the number of the batch and what it was told, and from nothing else, so that
one that is made anew and told the same proposes the same. `orchestration.testing.SearchContract` holds it to that.
"""

from __future__ import annotations

import json
import random
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Literal

from pydantic import JsonValue

from mcit_core.stages.digest import digest
from orchestration.plan.space import Point, Space
from orchestration.search.settings import GridSettings, SearchSettings

State = Literal["running", "complete", "pruned", "failed"]
#: draws of a setting that must not have been proposed before, by a search itself and then at random
OWN_DRAWS, RANDOM_DRAWS = 20, 500


@dataclass(frozen=True)
class Proposal:
    """A setting that a search has proposed. `number`: counts them from 0; below that: not proposed but known from
    another RUN. `memo`: what the search wants to have told again beside the outcome. `objectives`: in the order of the
    search's settings, of one that is complete. `constraints`: by metric what it is above its bound, at most 0 where it
    keeps to it. `partial`: of one that was pruned, the stages that it had and its mean accuracy after them."""

    number: int
    batch: int
    values: Point
    memo: dict[str, JsonValue] = field(default_factory=dict)
    state: State = "running"
    objectives: tuple[float, ...] = ()
    constraints: dict[str, float] = field(default_factory=dict)
    partial: tuple[int, float] | None = None

    @property
    def feasible(self) -> bool:
        return all(above <= 0 for above in self.constraints.values())


class Search(ABC):
    """`settings`: those of the search's kind in the sweep file; `space`: what may be proposed."""

    def __init__(self, settings: GridSettings | SearchSettings, space: Space) -> None:
        self.space = space
        self._known: dict[int, Proposal] = {}
        self._points: set[str] = set()

    @abstractmethod
    def propose(self, batch: int) -> list[Proposal]:
        """The settings of a batch, counted from 0, in order; none that was told before stands among them, nor one
        twice. Fewer than the batch has, or none, where there are no others."""

    def tell(self, proposals: Iterable[Proposal]) -> None:
        """How settings stand, of this search's or known from elsewhere; the newest word on a number counts."""
        for proposal in proposals:
            self._known[proposal.number] = proposal
            self._points.add(_key(proposal.values))

    def state(self) -> list[Proposal]:
        """All that was told, by number: another search of the same settings and space that is told it goes on as this
        one would."""
        return [self._known[number] for number in sorted(self._known)]

    def filled(
        self, batch: int, size: int, seed: int, draw: Callable[[int], Proposal], draws: int = OWN_DRAWS
    ) -> list[Proposal]:
        """A batch of `size` settings, each by `draw(number)`, which is asked again, `draws` times, while it gives one
        that makes no sense or was there before, and replaced by one at random where it gives no other."""
        found: list[Proposal] = []
        taken: set[str] = set()

        def fits(point: Point) -> bool:
            key = _key(point)
            return key not in self._points and key not in taken and self.space.fault(point) is None

        for number in range(batch * size, (batch + 1) * size):
            own = (draw(number) for _ in range(draws))
            proposal = next((one for one in own if fits(one.values)), None)
            if proposal is None:
                point = next(filter(fits, self._others(random.Random(digest([seed, number])))), None)
                if point is None:
                    break
                proposal = Proposal(number, batch, point)
            taken.add(_key(proposal.values))
            found.append(proposal)
        return found

    def _others(self, rng: random.Random) -> Iterator[Point]:
        """Points at random, then all where they can be counted."""
        for _ in range(RANDOM_DRAWS):
            yield self.space.at([rng.random() for _ in self.space.axes])
        if self.space.counted:
            yield from self.space.points()


def _key(point: Point) -> str:
    return json.dumps(point, sort_keys=True)
