"""Elastic weight consolidation: weights that the answers' likelihood depends on are held.

Source: Kirkpatrick et al., arXiv 1612.00796, with the running sum of Schwarz et al., arXiv 1805.06370.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic import Field

from mcit_core.config import Section
from mcit_core.protection.importance import QuadraticPenalty, importance

if TYPE_CHECKING:
    from torch import Tensor


class EwcSettings(Section):
    kind: Literal["ewc"] = "ewc"
    strength: float = Field(1.0, ge=0, description="weight of the term")
    samples: int = Field(128, ge=1, description="rows of the task before that its Fisher information is taken on")


def log_likelihood(logits: Tensor, labels: Tensor) -> Tensor:
    """Minus the log-likelihood of the answers, summed over their tokens."""
    import torch.nn.functional as F

    return F.cross_entropy(logits.flatten(0, 1), labels.flatten(), ignore_index=-100, reduction="sum")


class Ewc(QuadraticPenalty[EwcSettings]):
    """strength / 2 * sum_i F_i (θ_i - θ*_i)², F the diagonal of the empirical Fisher information: the mean over rows of
    the squared gradient of the answer's log-likelihood."""

    Settings = EwcSettings
    word = "fisher"

    def measure(self) -> dict[str, Tensor]:
        start, samples = self.start, self.settings.samples
        return importance(
            start.bench.model,
            start.tuner,
            start.last_rows,
            samples,
            log_likelihood,
            lambda gradient: gradient.square(),
            start.team,
        )

    def factor(self) -> float:
        return self.settings.strength / 2
