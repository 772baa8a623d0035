"""Moving averages of the tuned weights: what a stage hands on is the average, while training goes on un-averaged.

Source: Qiao et al., LLaCA, arXiv 2410.10868; the formulae and what of them is a reconstruction: `mcit_core.averaging`.
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from mcit_core.config import Section
from mcit_core.protection import Protection, S, StageStart


class FixedSettings(Section):
    kind: Literal["fixed"] = "fixed"
    weight: float = Field(0.99, ge=0, le=1, description="weight on the OLD average")


class TaylorSettings(Section):
    kind: Literal["taylor"] = "taylor"
    outside: Literal["fallback", "clip"] = Field(
        "fallback", description="a weight outside (0, 1) becomes 0.99, or is clipped to [0, 1]"
    )


class PerTensorSettings(Section):
    kind: Literal["per_tensor"] = "per_tensor"


class _Averaging(Protection[S]):
    """The average begins at the weights that the stage before left."""

    def __init__(self, settings: S, start: StageStart) -> None:
        from mcit_core.averaging import Averager

        super().__init__(settings, start)
        self.averager = Averager(start.tuner.parameters(), **settings.model_dump())

    def see_gradients(self) -> None:
        self.averager.see_gradients()

    def see_step(self) -> None:
        self.averager.see_step()

    def end(self) -> None:
        self.metrics = self.averager.finish()
        self.traces = {f"ema/{name}": values for name, values in self.averager.trace.items()}


class Fixed(_Averaging[FixedSettings]):
    """A constant weight."""

    Settings = FixedSettings


class Taylor(_Averaging[TaylorSettings]):
    """LLaCA's weight, one for all tensors, as the paper has it."""

    Settings = TaylorSettings


class PerTensor(_Averaging[PerTensorSettings]):
    """LLaCA's weight, one a tensor, as its released code has it."""

    Settings = PerTensorSettings
