"""What a sweep file says of each kind of search, beside its kind. Loads nothing large."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

from mcit_core.metrics import METRICS
from mcit_core.registry import near

#: what a trial costs, which depends on no split; the other metrics are read on validation rows
COSTS = ("trained_parameters", "memory_bytes")
#: what can be an objective or be bounded
READABLE = (*METRICS, *COSTS)
Direction = Literal["maximize", "minimize"]


def _known(names: dict[str, object]) -> None:
    for name in names:
        if name not in READABLE:
            raise ValueError(
                f"there is no metric {name!r} to search by; expected {', '.join(READABLE)}{near(name, READABLE)}"
            )


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False, populate_by_name=True)


class GridSettings(_Strict):
    """A grid has none."""


class SearchSettings(_Strict):
    """Of every search that proposes settings in batches. Batch b is proposed from the results of batches up to
    b - 1 - lag, so that neither the number of workers nor an interruption changes it."""

    trials: int = Field(ge=1, description="settings that are proposed; each runs under all orders and seeds")
    objectives: dict[str, Direction] = Field(
        {"average_accuracy": "maximize"},
        min_length=1,
        description="metrics on validation rows, each with its direction",
    )
    constraints: dict[str, float] = Field({}, description="metrics, each with the largest value that is allowed")
    seed: int = Field(0, ge=0, lt=2**32, description="of the search, not of the trials")
    batch: int = Field(4, ge=1, description="settings that are proposed at once")
    lag: int = Field(1, ge=0, description="batches that may run while the results of an earlier one are not in")
    known: list[str] = Field([], alias="from", description="RUNs whose settings the search begins with")

    def sign(self, objective: str) -> int:
        """What makes more of an objective better."""
        return 1 if self.objectives[objective] == "maximize" else -1

    @field_validator("objectives", "constraints")
    @classmethod
    def _metrics(cls, given: dict[str, object]) -> dict[str, object]:
        _known(given)
        return given


class OptunaSettings(SearchSettings):
    sampler: Literal["tpe", "gp", "nsga2", "nsga3", "random", "qmc"] = "tpe"
