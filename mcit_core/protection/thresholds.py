"""The settings that turn spectra into ranks, shared by the projecting protections."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from mcit_core.config import Energy

PretrainedEnergy = Annotated[Energy, Field(description="energy threshold of the pre-trained space")]
TaskEnergy = Annotated[Energy, Field(description="energy threshold of what a stage claims")]
EnergyOf = Annotated[
    Literal["remaining", "total"],
    Field(description="a share of what is left after projection, or of the task's whole energy (GPM's rule)"),
]
RankBudget = Annotated[
    Literal["equal"] | None, Field(description="equal: at most dims left / stages left per stage; null: no bound")
]
Center = Annotated[
    bool, Field(description="centre features before their spectrum; changes ranks by orders of magnitude")
]
