"""Fwd-Prompt's projection modes: a stage's prompts move in a subspace of the model's input alone.

Source: Zheng et al., arXiv 2401.09181 for the two spaces; ranks and budgets are a reconstruction (`spaces`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic import Field

from mcit_core.config import Experiment, Section, Value
from mcit_core.parallel import ALONE, Team
from mcit_core.protection import S, StageStart, StageView
from mcit_core.protection.projecting import (
    Center,
    Condition,
    EnergyOf,
    KeyEnergy,
    PretrainedEnergy,
    Projecting,
    RankBudget,
    RowScale,
    TaskEnergy,
    row_view,
)
from mcit_core.registry import TUNERS
from mcit_core.stages.results import NO_SAMPLE

if TYPE_CHECKING:
    from mcit_core.protection.spaces import Projector, Space
    from mcit_core.stages.state import StageState


class ResidualSettings(Section):
    mode: Literal["residual"] = "residual"
    keys: KeyEnergy = None
    task_energy: TaskEnergy = 0.95
    energy_of: EnergyOf = "remaining"
    rank_budget: RankBudget = None
    rows: RowScale = "unit"
    condition: Condition = "input"
    center: Center = False


class PretrainedSettings(Section):
    mode: Literal["pretrained"] = "pretrained"
    pretrained_energy: PretrainedEnergy = 0.99
    rows: RowScale = "unit"
    center: Center = False


class BothSettings(Section):
    mode: Literal["both"] = "both"
    allowed: Literal["room", "claimed"] = Field(
        "room",
        description="prompts move in all of the pre-trained space that is not claimed yet, or in what the stage claims",
    )
    keys: KeyEnergy = None
    pretrained_energy: PretrainedEnergy = 0.99
    task_energy: TaskEnergy = 0.95
    energy_of: EnergyOf = "remaining"
    rank_budget: RankBudget = None
    rows: RowScale = "unit"
    condition: Condition = "input"
    center: Center = False


def space_at(settings: Section, view: StageView, team: Team = ALONE) -> Space:
    """Where the prompts of a stage may move, from the statistics of its task and of every earlier one."""
    from mcit_core.protection.spaces import SpaceRule, stage_space

    given = settings.model_dump(exclude={"keys"})
    rows = given.pop("rows")
    claimed = row_view(rows, given.pop("condition", "input"))
    device = view.bench.model.device  # where they are decomposed
    statistics = [view.bench.statistics(task, claimed, team).to(device) for task in (*view.earlier, view.task)]
    pretraining = view.bench.statistics("pretraining", rows, team).to(device)
    return stage_space(SpaceRule(**given), statistics, pretraining, len(view.experiment.order))


class _Projection(Projecting[S]):
    """Gradient and realised change of every tensor that holds rows of the model's input stay in the stage's space."""

    def __init__(self, settings: S, start: StageStart) -> None:
        from mcit_core.protection.spaces import Projector, warn_of_exhaustion

        super().__init__(settings, start)
        tuner, width = start.tuner, start.bench.model.width
        projected = {name: tuner.parameters()[name] for name in tuner.projected}
        if {parameter.shape[-1] for parameter in projected.values()} != {width}:
            mode = start.experiment.projection.model_dump()["mode"]
            raise ValueError(
                f"projection.mode {mode}: tuner {start.experiment.tuner} trains no rows of the model's input; "
                "use projection.mode pegp"
            )
        space = space_at(settings, start, start.team)
        bounded = space.allowed is not None and space.allowed.shape[1] < len(space.allowed)
        spaces = dict.fromkeys(projected, space) if bounded else {}
        self.projector = Projector(projected, spaces)
        self.keys = self._keys(start, settings.model_dump().get("keys"))
        warn_of_exhaustion(start.number, start.task, spaces)

    def _keys(self, start: StageStart, energy: float | None) -> Projector:
        """Keeps the keys of a pool away from the queries of earlier tasks, where that is asked for."""
        from mcit_core.protection.key_spaces import key_spaces
        from mcit_core.protection.spaces import Projector
        from mcit_core.tuners import ChoosesByKeys

        if energy is None:
            return Projector({}, {})
        if not isinstance(start.tuner, ChoosesByKeys):
            raise ValueError(f"projection.keys: tuner {start.experiment.tuner} has no keys; leave it out")
        earlier = [start.bench.rows(task, "train") for task in start.earlier]
        spaces = key_spaces(start.tuner, earlier, energy, start.team)
        return Projector({name: start.tuner.parameters()[name] for name in spaces}, spaces)

    def change_gradients(self, measure: bool) -> None:
        super().change_gradients(measure)
        self.keys.change_gradients(measure=False)

    def change_step(self) -> None:
        super().change_step()
        self.keys.change_step()

    @classmethod
    def check(cls, experiment: Experiment) -> None:
        part = TUNERS.part(experiment.tuner)
        if part is not None and "pool" not in part.reads and experiment.projection.model_dump().get("keys") is not None:
            raise ValueError(f"projection.keys: tuner {experiment.tuner} has no keys; leave it out")
        if part is not None and part.front is False:
            front = [name for name in TUNERS.built_in if getattr(TUNERS.part(name), "front", False)]
            raise ValueError(
                f"projection.mode {experiment.projection.model_dump()['mode']} is about the model's input, where tuner "
                f"{experiment.tuner} trains nothing; use projection.mode pegp, or tuner {' or '.join(front)}"
            )

    @classmethod
    def after(cls, settings: S, view: StageView, state: StageState) -> dict[str, float]:
        space = space_at(settings, view)
        assert space.allowed is not None
        stands_in = "pretrained_energy" in type(settings).model_fields and not view.bench.has_sample
        return {
            **({NO_SAMPLE: 1.0} if stands_in else {}),
            "subspace/rank": float(space.claimed.shape[1]),
            "subspace/dims_left": float(space.dims_left),
            "subspace/occupied": float(space.occupied.shape[1]),
            "subspace/exhausted": float(space.exhausted),
            "subspace/allowed": float(space.allowed.shape[1]),
            "memory_bytes": 8.0 * len(space.occupied) * (space.occupied.shape[1] + space.claimed.shape[1]),
        }


def _with_budget(experiment: Experiment, fields: dict[str, Value]) -> dict[str, Value]:
    """A budget shares the dimensions out over all stages, so their number counts."""
    return {**fields, "stages": len(experiment.order)} if fields["rank_budget"] == "equal" else fields


class Residual(_Projection[ResidualSettings]):
    """Away from what earlier stages claimed."""

    Settings = ResidualSettings

    @classmethod
    def active(cls, experiment: Experiment, settings: ResidualSettings, alone: bool) -> dict[str, Value]:
        # the only space is that of claims, whose rows come as the first attention has them
        unread = {"rows"} if settings.condition == "attention" else set()
        return {} if alone else _with_budget(experiment, settings.model_dump(exclude=unread))


class Pretrained(_Projection[PretrainedSettings]):
    """Into the pre-trained space, from the first stage on."""

    Settings = PretrainedSettings

    @classmethod
    def active(cls, experiment: Experiment, settings: PretrainedSettings, alone: bool) -> dict[str, Value]:
        return settings.model_dump()


class Both(_Projection[BothSettings]):
    """Into the pre-trained space, away from what earlier stages claimed, from the first stage on."""

    Settings = BothSettings

    @classmethod
    def active(cls, experiment: Experiment, settings: BothSettings, alone: bool) -> dict[str, Value]:
        # what a first stage claims bounds later ones alone, unless it may move in nothing else
        claims = (
            {"task_energy", "energy_of", "rank_budget", "condition"} if alone and settings.allowed == "room" else set()
        )
        fields = settings.model_dump(exclude=claims | ({"keys"} if alone else set()))
        return fields if claims else _with_budget(experiment, fields)
