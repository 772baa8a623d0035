"""Every point of the axes, at once."""

from __future__ import annotations

from orchestration.search import Proposal, Search


class Grid(Search):
    def propose(self, batch: int) -> list[Proposal]:
        if batch:
            return []
        points = {str(point): point for point in self.space.points()}
        return [Proposal(number, 0, point) for number, point in enumerate(points.values())]
