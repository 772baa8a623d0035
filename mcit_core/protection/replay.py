"""Experience replay: rows of earlier tasks in every batch (Chaudhry et al., arXiv 1902.10486).

The buffer is a reservoir (Vitter 1985): every row seen so far is in it with the same chance, and it never holds more
than `replay.rows`. It follows from (seed, earlier tasks) alone, in the form that keeps the rows of smallest random
rank; nothing of it needs to be stored with a stage.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic import Field

from mcit_core.config import OpenShare, Section
from mcit_core.data.order import generator
from mcit_core.protection import Protection, StageStart, StageView

if TYPE_CHECKING:
    from mcit_core.data.workbench import Workbench
    from mcit_core.stages.state import StageState


class ReservoirSettings(Section):
    kind: Literal["reservoir"] = "reservoir"
    rows: int = Field(60, ge=1, description="rows kept, of all earlier tasks together")
    batch_share: OpenShare = Field(0.25, description="share of a batch taken from them")


def reservoir(seed: int, sizes: dict[str, int], capacity: int) -> list[tuple[str, int]]:
    """(task, row) of the kept rows, `sizes` giving the number of training rows of each task seen so far. A task that
    comes later never brings back a row that was dropped."""
    ranked = [
        (rank, task, row)
        for task, size in sizes.items()
        for row, rank in enumerate(generator(seed, task, "reservoir").random(size).tolist())
    ]
    return [(task, row) for _, task, row in sorted(ranked)[:capacity]]


def kept_rows(view: StageView, tasks: tuple[str, ...], capacity: int) -> list[tuple[str, int]]:
    """(task, row) of what is kept of `tasks`, the tasks seen so far."""
    sizes = {task: len(view.bench.rows(task, "train")) for task in tasks}
    return reservoir(view.experiment.seed, sizes, capacity)


def buffer_bytes(bench: Workbench, kept: list[tuple[str, int]]) -> int:
    """Bytes of the kept rows as the benchmark stores them: pictures, instruction and answer."""
    return sum(bench.rows(task, "train").stored_bytes(row) for task, row in kept)


class Reservoir(Protection[ReservoirSettings]):
    """A share of every batch, at least one row of it, is drawn from the buffer."""

    Settings = ReservoirSettings

    def __init__(self, settings: ReservoirSettings, start: StageStart) -> None:
        super().__init__(settings, start)
        self.kept = kept_rows(start, start.earlier, settings.rows)
        self.count = max(1, round(start.experiment.train.batch_size * settings.batch_share))
        self._draw = generator(start.experiment.seed, start.task, "replay")

    def replayed(self) -> list[tuple[str, int]]:
        return [self.kept[i] for i in self._draw.integers(len(self.kept), size=self.count)]

    @classmethod
    def after(cls, settings: ReservoirSettings, view: StageView, state: StageState) -> dict[str, float]:
        if view.experiment.protocol != "sequence":
            return {}
        kept = kept_rows(view, (*view.earlier, view.task), settings.rows)
        return {"memory_bytes": float(buffer_bytes(view.bench, kept))}
