"""The training step: forward, backward, project, clip, optimise, project the realised change, average."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mcit_core.averaging import Averager
from mcit_core.config import Train
from mcit_core.models import FrozenFeatures, Model
from mcit_core.protection.projection import Space
from mcit_core.protection.regularisers import Regulariser
from mcit_core.tuners import Tuner


@dataclass(frozen=True)
class Learner:
    """What a stage trains with. `spaces`: parameter name -> where it may move; one without an entry moves freely."""

    model: Model
    tuner: Tuner
    optimizer: torch.optim.Optimizer
    train: Train
    spaces: dict[str, Space] = field(default_factory=dict)
    averager: Averager | None = None
    regulariser: Regulariser | None = None


def train_step(
    learner: Learner, features: FrozenFeatures, labels: Tensor, measure: bool = False
) -> tuple[float, dict[str, float]]:
    """One optimizer step. Returns the loss and, if asked, the raw gradient's energy shares.

    Adam's per-element scaling leaves the subspace, so the change it realised is projected as well as the gradient.
    Raises FloatingPointError where the loss is not finite.
    """
    model, tuner, train, regulariser = learner.model, learner.tuner, learner.train, learner.regulariser
    half = train.precision == "bfloat16"
    if regulariser is not None:
        regulariser.before_forward(features, labels)
    parameters = tuner.parameters()
    with tuner.attached(), torch.autocast(model.device.type, dtype=torch.bfloat16, enabled=half):
        inputs = tuner.inputs(features, training=True)
        logits = model.logits(model.encoder(inputs.embedded, inputs.mask), labels).float()
    loss = F.cross_entropy(logits.flatten(0, 1), labels.flatten(), ignore_index=-100) + inputs.extra_loss
    if regulariser is not None:
        loss = loss + regulariser.loss(parameters, logits, labels)
    if not torch.isfinite(loss):
        raise FloatingPointError(f"the loss is {loss.item()}; lower train.lr or set train.clip")
    learner.optimizer.zero_grad(set_to_none=True)
    loss.backward()  # type: ignore[no-untyped-call]

    if learner.averager is not None:
        learner.averager.weigh()
    shares: list[dict[str, float]] = []
    bounded = {name: space for name, space in learner.spaces.items() if space.allowed is not None}
    for name, space in learner.spaces.items():
        gradient = parameters[name].grad
        assert gradient is not None, name
        if measure:
            shares.append(space.energy_shares(gradient))
        if name in bounded:
            gradient.copy_(space.project(gradient))
    if train.clip is not None:
        nn.utils.clip_grad_norm_(parameters.values(), train.clip)
    frozen = {name: rows for name in parameters if (rows := tuner.frozen_rows(name)) is not None}
    before = {name: parameters[name].detach().clone() for name in {*bounded, *frozen}}
    learner.optimizer.step()
    with torch.no_grad():
        for name, space in bounded.items():
            old = before[name].double()
            parameters[name].copy_(old + space.project(parameters[name].double() - old))
        for name, rows in frozen.items():
            parameters[name][rows] = before[name][rows]
    if learner.averager is not None:
        learner.averager.update()
    return loss.item(), {name: sum(s[name] for s in shares) / len(shares) for name in (shares[0] if shares else ())}
