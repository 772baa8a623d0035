"""The subspaces that tensors may move in: Fwd-Prompt's three modes, and the projector that keeps a step inside.

Statistics are kept threshold-free, and the spaces of every stage follow from them and the thresholds alone, so nothing
of a space has to be stored: `stage_space` replays the claims of the earlier stages.

Source: Zheng et al., arXiv 2401.09181 for the two spaces; everything about ranks and budgets is a reconstruction.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from mcit_core import subspace
from mcit_core.data.statistics import Statistics

#: width from which on a space is projected to by the smaller of it and its complement
WIDE = 512
#: the columns of `Inside.energy_shares`
SHARES = ("allowed", "occupied", "other")


@dataclass(frozen=True)
class SpaceRule:
    """How spaces follow from statistics; the fields are those of the projection modes' settings, whose defaults they
    share where a mode does not have one."""

    mode: Literal["none", "residual", "pretrained", "both", "pegp"] = "none"
    pretrained_energy: float = 0.99
    allowed: Literal["room", "claimed"] = "room"
    task_energy: float = 0.95
    energy_of: Literal["remaining", "total"] = "remaining"
    rank_budget: Literal["equal"] | None = None
    center: bool = False


@dataclass(frozen=True)
class Space:
    """Where one stage may move: `allowed` [d, k] (None: everywhere), what earlier stages claimed, what it claims."""

    allowed: Tensor | None
    occupied: Tensor  # [d, m]
    claimed: Tensor  # [d, r], added to `occupied` at the stage's end
    exhausted: bool = False  # the space asked for was empty; see `stage_space`
    dims_left: int = 0

    def inside(self, device: torch.device) -> Inside | None:
        """What projects into it, on a device; None: everywhere is inside."""
        if self.allowed is None:
            return None
        d, k = self.allowed.shape
        if d < WIDE or 2 * k <= d:
            return Inside(self.allowed.to(device), False, self.occupied.to(device))
        # all bases keep clear of what is occupied, so that together they may be everything
        outside = self.occupied if k + self.occupied.shape[1] == d else subspace.complement(self.allowed)
        return Inside(outside.to(device), True, self.occupied.to(device))

    def project(self, rows: Tensor) -> Tensor:
        """The part of rows [..., d] inside the allowed space, in float64."""
        inside = self.inside(rows.device)
        return rows.double() if inside is None else inside.project(rows)


@dataclass(frozen=True)
class Inside:
    """A space as every step uses it: `columns` are an orthonormal basis of it or, where that is smaller, of what is
    `outside` it."""

    columns: Tensor
    outside: bool
    occupied: Tensor

    def project(self, rows: Tensor) -> Tensor:
        """The part of rows [..., d] inside, in float64."""
        there = subspace.project(rows, self.columns)
        return rows.double() - there if self.outside else there

    def energy_shares(self, rows: Tensor) -> Tensor:
        """[3]: the shares of the squared norm of rows [..., d] inside, in the occupied space, and in neither; zeros
        where there is nothing to share out."""
        total = rows.double().square().sum()
        inside = self.project(rows).square().sum() / total
        occupied = subspace.project(rows, self.occupied).square().sum() / total
        return torch.where(total == 0, 0.0, torch.stack([inside, occupied, (1 - inside - occupied).clamp(min=0)]))


def claim_rank(rule: SpaceRule, inside: Tensor, whole_energy: float, captured: float) -> int:
    """How many leading directions reach the threshold; `inside` are the squared singular values left, descending."""
    if not len(inside) or inside[0] <= 0:
        return 0
    if rule.energy_of == "remaining":
        return subspace.energy_rank(inside, rule.task_energy)
    if captured >= rule.task_energy * whole_energy:
        return 0
    reached = captured + torch.cumsum(inside, 0) >= rule.task_energy * whole_energy
    return int(reached.nonzero()[0]) + 1 if reached.any() else subspace.energy_rank(inside, 1.0)


def _spectrum_inside(matrix: Tensor, room: Tensor) -> tuple[Tensor, Tensor]:
    """Spectrum of the statistics inside a subspace; energy that is round-off of the whole is none."""
    inside = room.T @ matrix @ room
    values, vectors = subspace.spectrum((inside + inside.T) / 2)
    return torch.where(values > len(matrix) * subspace.EPS * matrix.norm(), values, 0.0), vectors


def _step(rule: SpaceRule, matrix: Tensor, pretrained: Tensor, occupied: Tensor, stages_left: int) -> Space:
    d = len(matrix)
    nothing = matrix.new_zeros(d, 0)
    if rule.mode == "none":
        return Space(None, occupied, nothing, dims_left=d)
    if rule.mode == "pretrained":
        return Space(pretrained, occupied, nothing, dims_left=pretrained.shape[1])
    room = subspace.complement(occupied) if rule.mode == "residual" else subspace.allowed_basis(pretrained, occupied)
    values, vectors = _spectrum_inside(matrix, room)
    inside_empty = not len(values) or bool(values[0] <= 0)
    whole = matrix.diagonal().sum().item()
    inside = subspace.project(matrix, occupied).diagonal().sum().item() if occupied.shape[1] else 0.0
    rank = claim_rank(rule, values, whole, inside)
    if rule.rank_budget == "equal":
        rank = min(rank, max(1, room.shape[1] // max(1, stages_left)))
    claimed = room @ vectors[:, :rank]
    if rule.mode == "residual" or (rule.allowed == "room" and room.shape[1]):
        return Space(room, occupied, claimed, exhausted=room.shape[1] == 0, dims_left=room.shape[1])
    if rank == 0 and not inside_empty:  # earlier claims already reach the threshold: move, but claim nothing
        return Space(room, occupied, nothing, dims_left=room.shape[1])
    if rank == 0:  # nothing of the task in what is left of the pre-trained space: go on in what no stage has claimed
        rest = subspace.complement(occupied)
        return Space(rest, occupied, nothing, exhausted=True, dims_left=room.shape[1])
    return Space(claimed, occupied, claimed, dims_left=room.shape[1])


def stage_space(rule: SpaceRule, tasks: list[Statistics], pretraining: Statistics, stages: int) -> Space:
    """The space of stage len(tasks) - 1 of `stages`, given the statistics of its task and of every earlier one.

    mode both: all of A_t = V_pre · null(CᵀV_pre), or (`allowed: claimed`) S_t, the leading directions of X_t in it,
    which is what the stage claims; residual: the complement of C; pretrained: V_pre; none: everything. Where that is
    empty (A_t used up, or with `allowed: claimed` nothing of the task in it) `both` goes on in the complement of C with
    `exhausted` set; where that is empty too, `allowed` has no columns and the prompts do not move. `dims_left` is the
    width of A_t or of the complement of C before the stage's claim.
    """
    first = tasks[0].gram
    pretrained = first.new_zeros(len(first), 0)
    if rule.mode in ("pretrained", "both"):
        pretrained = subspace.leading(pretraining.matrix(rule.center), rule.pretrained_energy)
    occupied = first.new_zeros(len(first), 0)
    space = Space(None, occupied, occupied)
    for stage, task in enumerate(tasks):
        space = _step(rule, task.matrix(rule.center), pretrained, occupied, stages - stage)
        occupied = subspace.merge(occupied, space.claimed) if space.claimed.shape[1] else occupied
    return space


def grow(rule: SpaceRule, basis: Tensor, statistics: Statistics) -> Tensor:
    """basis [w, k] with the fewest leading directions of what is left of the statistics that reach the threshold."""
    matrix = statistics.matrix(rule.center)
    left = subspace.residual(matrix, basis)
    values, vectors = subspace.spectrum(left)
    captured = (matrix.diagonal().sum() - left.diagonal().sum()).item()
    rank = claim_rank(rule, values, matrix.diagonal().sum().item(), captured)
    return subspace.merge(basis, vectors[:, :rank]) if rank else basis


def space_outside(basis: Tensor) -> Space:
    """Everything outside the basis is allowed. A full basis freezes the tensor, and `exhausted` says so."""
    room = subspace.complement(basis)
    empty = basis.new_zeros(len(basis), 0)
    return Space(room, basis, empty, exhausted=room.shape[1] == 0, dims_left=room.shape[1])


class Projector:
    """Keeps the gradients and the realised changes of `parameters` in their `spaces`; one without a space moves freely.

    Adam's per-element scaling leaves the subspace, so the change that it made is projected as well as the gradient.
    """

    def __init__(self, parameters: Mapping[str, nn.Parameter], spaces: Mapping[str, Space]) -> None:
        """A space that several parameters share is moved to their device once."""
        there: dict[tuple[int, torch.device], Inside | None] = {}
        self.parameters = parameters
        self._inside: dict[str, Inside] = {}
        for name, space in spaces.items():
            place = id(space), parameters[name].device
            if place not in there:
                there[place] = space.inside(parameters[name].device)
            inside = there[place]
            if inside is not None:
                self._inside[name] = inside
        self._before: dict[str, Tensor] = {}
        self._shares: list[Tensor] = []  # of each measured step, [spaces, 3]

    def change_gradients(self, measure: bool) -> None:
        shares: list[Tensor] = []
        for name, inside in self._inside.items():
            gradient = self.parameters[name].grad
            assert gradient is not None, name
            if measure:
                shares.append(inside.energy_shares(gradient))
            gradient.copy_(inside.project(gradient))
        if shares:
            self._shares.append(torch.stack([share.to(shares[0].device) for share in shares]))
        self._before = {name: self.parameters[name].detach().clone() for name in self._inside}

    @torch.no_grad()
    def change_step(self) -> None:
        for name, inside in self._inside.items():
            old = self._before[name].double()
            self.parameters[name].copy_(old + inside.project(self.parameters[name].double() - old))

    def gradient_shares(self) -> dict[str, float]:
        """Where the raw gradients' energy lay, means over the measured steps."""
        if not self._shares:
            return {}
        over_spaces = [_means(step.tolist()) for step in self._shares]
        return dict(zip((f"subspace/gradient_{name}" for name in SHARES), _means(over_spaces), strict=True))


def _means(rows: list[list[float]]) -> list[float]:
    return [sum(column) / len(column) for column in zip(*rows, strict=True)]


def warn_of_exhaustion(stage: int, task: str, spaces: dict[str, Space]) -> None:
    """Say where the space asked for is used up, and what that does to the stage."""
    used_up = [space.allowed for space in spaces.values() if space.exhausted]
    if used_up:
        stuck = [allowed for allowed in used_up if allowed is not None and not allowed.shape[1]]
        what = f"{len(stuck)} tensors do not move" if stuck else "it goes on in what no stage has claimed"
        warnings.warn(
            f"stage {stage} ({task}): the space asked for is used up for {len(used_up)} of {len(spaces)} projected "
            f"tensors; {what}. Lower projection.task_energy to leave room",
            stacklevel=3,
        )
