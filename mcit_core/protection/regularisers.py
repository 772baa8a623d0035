"""Terms of the loss that hold on to earlier tasks: EWC and LwF.

What a term needs of the task before is taken when the next stage begins, from the weights that the stage left, so that
a stage leaves the same state whatever a later one will do with it.
"""

from __future__ import annotations

from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mcit_core.config import Regulariser as Config
from mcit_core.data.features import Rows
from mcit_core.models import FrozenFeatures, Model
from mcit_core.tuners import Tuner


class Regulariser(Protocol):
    """`before_forward` runs before the tuner is asked for the student's logits; `loss` is added to the step's loss.
    `carried`: tensors that the stage's state keeps for the next one."""

    carried: dict[str, Tensor]

    def before_forward(self, features: FrozenFeatures, labels: Tensor) -> None: ...
    def loss(self, parameters: dict[str, nn.Parameter], logits: Tensor, labels: Tensor) -> Tensor: ...


def fisher(model: Model, tuner: Tuner, rows: Rows, samples: int) -> dict[str, Tensor]:
    """Diagonal of the empirical Fisher information: mean over rows of the squared gradient of the answer's
    log-likelihood, one row at a time (the square of a batch's mean gradient would be another quantity)."""
    parameters = tuner.parameters()
    total = {name: torch.zeros_like(parameter) for name, parameter in parameters.items()}
    count = min(samples, len(rows))
    with tuner.attached():
        for i in range(count):
            index = torch.tensor([i])
            labels = rows.labels[index.to(rows.labels.device)]
            inputs = tuner.inputs(rows[index], training=False)
            logits = model.logits(model.encoder(inputs.embedded, inputs.mask), labels)
            loss = F.cross_entropy(logits.flatten(0, 1), labels.flatten(), ignore_index=-100, reduction="sum")
            gradients = torch.autograd.grad(loss, list(parameters.values()), allow_unused=True)
            for name, gradient in zip(parameters, gradients, strict=True):
                if gradient is not None:
                    total[name] += gradient.square()
    return {name: value / count for name, value in total.items()}


class Ewc:
    """strength / 2 * sum_i F_i (θ_i - θ*_i)², θ* the weights that the stage before left, F summed over all earlier
    tasks. Kirkpatrick et al., arXiv 1612.00796; the running sum with one anchor: Schwarz et al., arXiv 1805.06370."""

    def __init__(self, config: Config, model: Model, tuner: Tuner, rows: Rows, before: dict[str, Tensor]) -> None:
        """`tuner` holds the weights of the stage before, `rows` are of its task, `before` is its state."""
        self.strength = config.strength
        self.anchor = {name: parameter.detach().clone() for name, parameter in tuner.parameters().items()}
        self.fisher = fisher(model, tuner, rows, config.samples)
        for name in self.fisher:
            if f"fisher.{name}" in before:
                self.fisher[name] = self.fisher[name] + before[f"fisher.{name}"].to(self.fisher[name].device)
        self.carried = {f"fisher.{name}": value for name, value in self.fisher.items()}

    def before_forward(self, features: FrozenFeatures, labels: Tensor) -> None:
        """Nothing to do."""

    def loss(self, parameters: dict[str, nn.Parameter], logits: Tensor, labels: Tensor) -> Tensor:
        parts = [(self.fisher[name] * (p - self.anchor[name]).square()).sum() for name, p in parameters.items()]
        return self.strength / 2 * torch.stack(parts).sum()


class Lwf:
    """strength * T² * KL(teacher ‖ student) over the answer's tokens, both at temperature T, on the new task's rows;
    the teacher is the model that the stage before left. Li & Hoiem, arXiv 1606.09282; on teacher-forced tokens instead
    of task heads: a reconstruction."""

    def __init__(self, config: Config, model: Model, teacher: Tuner) -> None:
        self.config, self.model, self.teacher = config, model, teacher
        self.carried: dict[str, Tensor] = {}
        self._wanted: Tensor | None = None

    @torch.no_grad()
    def before_forward(self, features: FrozenFeatures, labels: Tensor) -> None:
        with self.teacher.attached():
            inputs = self.teacher.inputs(features, training=False)
            self._wanted = self.model.logits(self.model.encoder(inputs.embedded, inputs.mask), labels)

    def loss(self, parameters: dict[str, nn.Parameter], logits: Tensor, labels: Tensor) -> Tensor:
        assert self._wanted is not None
        real = labels != -100
        t = self.config.temperature
        wanted = F.log_softmax(self._wanted[real].float() / t, -1)
        given = F.log_softmax(logits[real].float() / t, -1)
        return self.config.strength * t * t * F.kl_div(given, wanted, log_target=True, reduction="batchmean")
