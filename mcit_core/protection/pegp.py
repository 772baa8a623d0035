"""PEGP: every tuned tensor moves only where the inputs that earlier tasks sent it do not see it.

Source: Qiao et al., PEGP, arXiv 2405.13383; the bases and what of them differs from the public code: `bases`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic import Field

from mcit_core.config import Experiment, Section, Value
from mcit_core.protection import StageStart, StageView
from mcit_core.protection.projecting import Center, Condition, EnergyOf, Projecting, RowScale, TaskEnergy, row_view
from mcit_core.registry import TUNERS

if TYPE_CHECKING:
    from mcit_core.stages.state import StageState


class PegpSettings(Section):
    mode: Literal["pegp"] = "pegp"
    task_energy: TaskEnergy = 0.95
    energy_of: EnergyOf = "remaining"
    rows: RowScale = "unit"
    condition: Condition = "input"
    center: Center = False
    samples: int = Field(256, ge=1, description="rows of the task before whose inputs span its basis")


class Pegp(Projecting[PegpSettings]):
    """Away from the inputs that earlier tasks sent each tuned tensor. A site's basis is grown when a stage begins, from
    the weights that the stage before left."""

    Settings = PegpSettings

    def __init__(self, settings: PegpSettings, start: StageStart) -> None:
        from mcit_core.protection.bases import grown_bases, site_statistics
        from mcit_core.protection.spaces import Projector, SpaceRule, space_outside, warn_of_exhaustion

        super().__init__(settings, start)
        tuner = start.tuner
        if not tuner.projected:
            raise ValueError(f"projection.mode pegp: tuner {start.experiment.tuner} names no site to project")
        assert start.before is not None
        seen = row_view(settings.rows, settings.condition)
        statistics = site_statistics(start.bench.model, tuner, start.last_rows, settings.samples, seen, start.team)
        rule = SpaceRule(**settings.model_dump(exclude={"samples", "rows", "condition"}))
        bases = grown_bases(rule, start.before.tensors, statistics, start.bench.model.device)
        found = {site: space_outside(basis) for site, basis in bases.items()}
        spaces = {name: found[site] for name, site in tuner.projected.items()}
        self.projector = Projector({name: tuner.parameters()[name] for name in spaces}, spaces)
        self.carried = {f"basis.{site}": basis.cpu() for site, basis in bases.items()}
        warn_of_exhaustion(start.number, start.task, spaces)

    @classmethod
    def active(cls, experiment: Experiment, settings: PegpSettings, alone: bool) -> dict[str, Value]:
        part = TUNERS.part(experiment.tuner)
        inside = part is not None and part.front is False  # behind the layers' norms, where rows are as they are
        unread = {"rows", "condition"} if inside else {"rows"} if settings.condition == "attention" else set()
        return {} if alone else settings.model_dump(exclude=unread)

    @classmethod
    def check(cls, experiment: Experiment) -> None:
        part = TUNERS.part(experiment.tuner)
        if part is not None and part.no_pegp is not None:
            why = f"tuner {experiment.tuner} {part.no_pegp}"
            raise ValueError(f"projection.mode pegp: {why}; use projection.mode none")
        if experiment.tuner == "lora" and experiment.lora.projector_lr is not None:
            raise ValueError("projection.mode pegp: no basis is kept for a projector; leave lora.projector_lr out")
        samples, processes = experiment.projection.model_dump()["samples"], experiment.train.processes
        if samples < processes:
            raise ValueError(
                f"projection.samples {samples} is less than the {processes} processes that share them out; set as many"
            )

    @classmethod
    def after(cls, settings: PegpSettings, view: StageView, state: StageState) -> dict[str, float]:
        shapes = [tensor.shape for name, tensor in state.tensors.items() if name.startswith("basis.")]
        if not shapes:
            return {}
        return {
            "subspace/occupied": sum(k / d for d, k in shapes) / len(shapes),
            "subspace/frozen_sites": float(sum(d == k for d, k in shapes)),
            "subspace/sites": float(len(shapes)),
        }
