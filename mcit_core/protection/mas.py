"""Memory Aware Synapses: weights that the size of the output depends on are held, whatever the right answers were.

Source: Aljundi et al., ECCV 2018, arXiv 1711.09601, equations 2 to 4. Reconstruction: the output is the logits of the
answer's tokens, read with the answer as it stands in the rows (their network has one output a picture), and importances
are summed over tasks, as their released code does.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic import Field

from mcit_core.config import Section
from mcit_core.protection.importance import QuadraticPenalty, importance

if TYPE_CHECKING:
    from torch import Tensor


class MasSettings(Section):
    kind: Literal["mas"] = "mas"
    strength: float = Field(1.0, ge=0, description="weight of the term, the paper's lambda")
    samples: int = Field(128, ge=1, description="rows of the task before that importances are taken on")


def output_size(logits: Tensor, labels: Tensor) -> Tensor:
    """Squared length of the logits [N, n, V] of the answer's tokens; which of them were right does not matter."""
    return logits[labels != -100].square().sum()


class Mas(QuadraticPenalty[MasSettings]):
    """strength * sum_i Ω_i (θ_i - θ*_i)², Ω the mean over rows of the absolute gradient of the output's squared
    length."""

    Settings = MasSettings
    word = "omega"

    def measure(self) -> dict[str, Tensor]:
        start, samples = self.start, self.settings.samples
        return importance(
            start.bench.model,
            start.tuner,
            start.last_rows,
            samples,
            output_size,
            lambda gradient: gradient.abs(),
            start.team,
        )

    def factor(self) -> float:
        return self.settings.strength
