"""What the projecting protections share: the settings that turn spectra into ranks, and the place in a step."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from mcit_core.config import Energy
from mcit_core.protection import Protection, S

if TYPE_CHECKING:
    from mcit_core.data.statistics import RowView
    from mcit_core.protection.spaces import Projector

PretrainedEnergy = Annotated[Energy, Field(description="energy threshold of the pre-trained space")]
TaskEnergy = Annotated[Energy, Field(description="energy threshold of what a stage claims")]
EnergyOf = Annotated[
    Literal["remaining", "total"],
    Field(description="a share of what is left after projection, or of the task's whole energy (GPM's rule)"),
]
RankBudget = Annotated[
    Literal["equal"] | None, Field(description="equal: at most dims left / stages left per stage; null: no bound")
]
KeyEnergy = Annotated[
    Energy | None,
    Field(
        description="keys of a pool move away from earlier tasks' queries, up to this energy (PGP: 0.97); null: freely"
    ),
]
RowScale = Annotated[
    Literal["unit", "raw"],
    Field(description="rows of the model's input count by direction alone, or with their lengths"),
]
Condition = Annotated[
    Literal["input", "attention"],
    Field(
        description="old rows of the model's input are left alone themselves (x · change = 0), or what the first "
        "attention compares with a prompt (x W_q W_kᵀ · change = 0, by head, with the lengths that they have there)"
    ),
]
Center = Annotated[
    bool, Field(description="centre features before their spectrum; changes ranks by orders of magnitude")
]


def row_view(rows: RowScale, condition: Condition) -> RowView:
    """How rows of the model's input enter the statistics of what earlier tasks claim."""
    return "attention" if condition == "attention" else rows


class Projecting(Protection[S]):
    """Gradients and realised changes go through `projector`, which a subclass makes when a stage begins."""

    projector: Projector

    def change_gradients(self, measure: bool) -> None:
        self.projector.change_gradients(measure)

    def change_step(self) -> None:
        self.projector.change_step()

    def end(self) -> None:
        self.metrics = self.projector.gradient_shares()
