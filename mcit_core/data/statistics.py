"""Threshold-free statistics of token rows and of selection queries."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from mcit_core.models import Batch, Model, TellsFirstAttention
from mcit_core.parallel import Team

#: how rows of the model's input count: by direction, with their lengths, or as its first attention reads them
RowView = Literal["unit", "raw", "attention"]


@dataclass(frozen=True)
class Statistics:
    """Threshold-free statistics of token rows X [N, d]: float64 XᵀX, column sums and N. They add up over workers."""

    gram: Tensor
    total: Tensor
    count: int

    def matrix(self, center: bool) -> Tensor:
        """XᵀX, or that of the centred rows."""
        return self.gram - torch.outer(self.total, self.total) / self.count if center else self.gram

    def to(self, device: torch.device) -> Statistics:
        return Statistics(self.gram.to(device), self.total.to(device), self.count)

    def over(self, team: Team) -> Statistics:
        """Of the rows of all processes of a team."""
        gram, total, count = team.sum([self.gram, self.total, torch.tensor(self.count)])
        return Statistics(gram, total, int(count))

    def __add__(self, other: Statistics) -> Statistics:
        return Statistics(self.gram + other.gram, self.total + other.total, self.count + other.count)


def row_statistics(rows: Tensor, unit: bool = False) -> Statistics:
    """Of rows [N, d], accumulated in float64; `unit`: of their directions, each row scaled to length 1 (a row of zeros
    stays). A language model norms what it reads, so a row's length says nothing of what it does there."""
    rows = rows.double()
    if unit:
        rows = rows / rows.norm(dim=1, keepdim=True).clamp(min=torch.finfo(torch.float64).tiny)
    return Statistics((rows.T @ rows).cpu(), rows.sum(0).cpu(), len(rows))


@torch.no_grad()
def input_statistics(model: Model, rows: Tensor, view: RowView) -> Statistics:
    """Of rows [N, d] of the model's input; under "attention" each gives a direction a head, as long as it weighs there.
    Raises ValueError where the model does not tell what its first attention reads."""
    if view != "attention":
        return row_statistics(rows, view == "unit")
    if not isinstance(model, TellsFirstAttention):
        raise ValueError(
            f"projection.condition: attention: model {model.name} does not tell what its first attention reads "
            "(`first_attention`); use projection.condition: input"
        )
    return row_statistics(model.first_attention(rows).flatten(0, -2))


@torch.no_grad()
def token_statistics(model: Model, batch: Batch, view: RowView) -> Statistics:
    """Over ALL tokens that the frozen model feeds its language model: visual and instruction, padding left out."""
    return input_statistics(model, model.tokens(batch), view)


@dataclass(frozen=True)
class QueryStatistics:
    """Mean and deviation of the selection queries over the model's pre-training sample."""

    image_mean: Tensor
    image_std: Tensor
    text_mean: Tensor
    text_std: Tensor

    @classmethod
    def of(cls, image: Tensor, text: Tensor) -> QueryStatistics:
        """Of the queries [N, d_v] and [N, d_t] of N rows."""
        return cls(image.mean(0), image.std(0) + 1e-6, text.mean(0), text.std(0) + 1e-6)
