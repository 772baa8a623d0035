"""A quadratic penalty on moving weights that mattered to earlier tasks, and how much each of them did."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, ClassVar

from mcit_core.config import Experiment
from mcit_core.parallel import ALONE, Team
from mcit_core.protection import Protection, S, StageStart
from mcit_core.registry import TUNERS

if TYPE_CHECKING:
    from torch import Tensor, nn

    from mcit_core.data.features import Rows
    from mcit_core.models import Model
    from mcit_core.tuners import Tuner

#: of one row's logits [1, n, V] and labels [1, n], the scalar that a weight's importance is the sensitivity of
Score = Callable[["Tensor", "Tensor"], "Tensor"]


def importance(
    model: Model,
    tuner: Tuner,
    rows: Rows,
    samples: int,
    score: Score,
    size: Callable[[Tensor], Tensor],
    team: Team = ALONE,
) -> dict[str, Tensor]:
    """For every trained tensor the mean, over the first `samples` rows, of `size` of the gradient of `score`; one row
    at a time, since the size of a batch's mean gradient would be another quantity. Each process of a team takes its
    part of the rows, and they add up in float64."""
    import torch

    parameters = tuner.parameters()
    total = {name: torch.zeros_like(parameter) for name, parameter in parameters.items()}
    count = min(samples, len(rows))
    with tuner.attached():
        for i in range(count)[team.part()]:
            index = torch.tensor([i])
            labels = rows.labels_at(index)
            batch = rows[index]
            inputs = tuner.inputs(batch, training=False)
            logits = model.logits(model.read(batch, inputs.front), labels)
            gradients = torch.autograd.grad(score(logits, labels), list(parameters.values()), allow_unused=True)
            for name, gradient in zip(parameters, gradients, strict=True):
                if gradient is not None:
                    total[name] += size(gradient)
    sums = team.sum([value.double() for value in total.values()]) if team.size > 1 else total.values()
    return {name: (whole / count).to(total[name].dtype) for name, whole in zip(total, sums, strict=True)}


class QuadraticPenalty(Protection[S]):
    """factor * sum_i I_i (θ_i - θ*_i)², θ* the weights that the stage before left, I the importances summed over all
    earlier tasks: a running sum with one anchor (Schwarz et al., arXiv 1805.06370)."""

    #: what an importance is called in a stage's state
    word: ClassVar[str]

    def measure(self) -> dict[str, Tensor]:
        """The importances for the task learned last."""
        raise NotImplementedError

    def factor(self) -> float:
        """What the sum is multiplied by."""
        raise NotImplementedError

    def __init__(self, settings: S, start: StageStart) -> None:
        super().__init__(settings, start)
        self.anchor = {name: parameter.detach().clone() for name, parameter in start.tuner.parameters().items()}
        self.importance = self.measure()
        before = start.before.tensors if start.before is not None else {}
        for name, value in self.importance.items():
            if f"{self.word}.{name}" in before:
                self.importance[name] = value + before[f"{self.word}.{name}"].to(value.device)
        self.carried = {f"{self.word}.{name}": value for name, value in self.importance.items()}

    @classmethod
    def check(cls, experiment: Experiment) -> None:
        part = TUNERS.part(experiment.tuner)
        if part is not None and part.plain is not None:
            raise ValueError(
                f"a penalty on moving weights that mattered has nothing to hold in tuner {experiment.tuner}, which "
                f"keeps stages apart by itself; use regulariser.kind none, or tuner {part.plain}"
            )

    def loss(self, parameters: dict[str, nn.Parameter], logits: Tensor, labels: Tensor) -> Tensor:
        import torch

        parts = [(self.importance[name] * (p - self.anchor[name]).square()).sum() for name, p in parameters.items()]
        return self.factor() * torch.stack(parts).sum()
