"""The training step: forward, backward, protect, clip, optimise, protect the realised change."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mcit_core.config import Experiment, Section, Train
from mcit_core.models import Batch, Model
from mcit_core.protection import Protection
from mcit_core.tuners import Tuner


@dataclass(frozen=True)
class Learner:
    """What a stage trains with."""

    model: Model
    tuner: Tuner
    optimizer: torch.optim.Optimizer
    train: Train
    protections: Sequence[Protection[Section]] = ()


def optimizer_of(tuner: Tuner, experiment: Experiment) -> torch.optim.Optimizer:
    """Adam on the tuner's groups, new for every stage."""
    return torch.optim.Adam([dict(group) for group in tuner.groups(experiment)])


def train_step(learner: Learner, batch: Batch, labels: Tensor, measure: bool = False) -> float:
    """One optimizer step; `measure` asks the protections for figures that cost time. Returns the loss.

    Raises FloatingPointError where the loss is not finite.
    """
    model, tuner, train, protections = learner.model, learner.tuner, learner.train, learner.protections
    half = train.precision == "bfloat16"
    for protection in protections:
        protection.before_forward(batch, labels)
    parameters = tuner.parameters()
    with tuner.attached():  # the backward pass too: layers that are computed again there need the tuner
        with torch.autocast(model.device.type, dtype=torch.bfloat16, enabled=half):
            inputs = tuner.inputs(batch, training=True)
            logits = model.logits(model.read(batch, inputs.front), labels).float()
        loss = F.cross_entropy(logits.flatten(0, 1), labels.flatten(), ignore_index=-100) + inputs.extra_loss
        for protection in protections:
            term = protection.loss(parameters, logits, labels)
            loss = loss if term is None else loss + term
        if not torch.isfinite(loss):
            raise FloatingPointError(f"the loss is {loss.item()}; lower train.lr or set train.clip")
        learner.optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]

    for name, parameter in parameters.items():
        rows = tuner.frozen_rows(name)
        if rows is not None and parameter.grad is not None:
            parameter.grad[rows] = 0  # they do not move, and have no part in any norm
    for protection in protections:
        protection.see_gradients()
    for protection in protections:
        protection.change_gradients(measure)
    if train.clip is not None:
        nn.utils.clip_grad_norm_(parameters.values(), train.clip)
    learner.optimizer.step()
    for protection in protections:
        protection.change_step()
    for protection in protections:
        protection.see_step()
    return loss.item()
