"""The training step: forward, backward, protect, clip, optimise, protect the realised change."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import get_scheduler

from mcit_core.config import Experiment, Section, Train
from mcit_core.models import Batch, Model
from mcit_core.parallel import ALONE, Team
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
    team: Team = ALONE


def optimizer_of(tuner: Tuner, experiment: Experiment) -> torch.optim.Optimizer:
    """Adam or AdamW on the tuner's groups, new for every stage. What is projected decays too, and its projection keeps
    the decay inside: it is the realised change that is projected."""
    groups = [dict(group) for group in tuner.groups(experiment)]
    if experiment.train.optimizer == "adam":
        return torch.optim.Adam(groups)
    return torch.optim.AdamW(groups, weight_decay=experiment.train.weight_decay)


def scheduler_of(optimizer: torch.optim.Optimizer, train: Train, steps: int) -> torch.optim.lr_scheduler.LRScheduler:
    """The learning rate over `steps` steps, by transformers' own schedules."""
    warmup = round(train.warmup * steps)
    kind = "constant_with_warmup" if train.schedule == "constant" else "cosine"
    return get_scheduler(kind, optimizer, num_warmup_steps=warmup, num_training_steps=steps)


def train_step(learner: Learner, batch: Batch, labels: Tensor, measure: bool = False) -> Tensor:
    """One optimizer step on a batch, or on this process's part of it, in `train.accumulate` parts; `measure` asks the
    protections for figures that cost time. Returns the loss of the whole batch, a scalar on the model's device: a GPU
    is not waited for at every step (see `fetched`), but by a team."""
    tuner, train, protections = learner.tuner, learner.train, learner.protections
    parameters = tuner.parameters()
    learner.optimizer.zero_grad(set_to_none=True)
    if train.accumulate == 1 and learner.team.size == 1:
        loss = _backward(learner, batch, labels, 1.0, 1.0)
    else:
        loss = torch.zeros((), dtype=torch.float64, device=labels.device)
        lengths: list[int] = (labels != -100).sum(1).tolist()
        tokens, rows = learner.team.count(sum(lengths), len(lengths))  # of the whole batch
        for part in torch.arange(len(labels)).tensor_split(train.accumulate):
            told = [lengths[row] for row in part.tolist()]
            loss += _backward(learner, batch[part], labels[part, : max(told)], sum(told) / tokens, len(part) / rows)
        loss = _add_up(learner, loss)

    frozen: list[tuple[nn.Parameter, Tensor, Tensor]] = []
    for name, parameter in parameters.items():
        still = tuner.frozen_rows(name)
        if still is not None and parameter.grad is not None:
            still = still.view(-1, *[1] * (parameter.dim() - 1))
            parameter.grad.masked_fill_(still, 0)  # they do not move, and have no part in any norm
            frozen.append((parameter, still, parameter.detach().clone()))
    for protection in protections:
        protection.see_gradients()
    for protection in protections:
        protection.change_gradients(measure)
    if train.clip is not None:
        nn.utils.clip_grad_norm_(parameters.values(), train.clip)
    learner.optimizer.step()
    with torch.no_grad():
        for parameter, still, values in frozen:
            parameter.copy_(torch.where(still, values, parameter))  # nor do they decay
    for protection in protections:
        protection.change_step()
    for protection in protections:
        protection.see_step()
    return loss


def fetched(losses: list[Tensor], first: int = 0) -> list[float]:
    """The losses of some steps, the number of the `first`. Raises FloatingPointError where one is not finite."""
    values: list[float] = torch.stack(losses).tolist() if losses else []
    for step, value in enumerate(values, first):
        if not math.isfinite(value):
            raise FloatingPointError(f"the loss of step {step} is {value}; lower train.lr or set train.clip")
    return values


def _add_up(learner: Learner, loss: Tensor) -> Tensor:
    """Adds up the gradients over the team, once a step; returns the loss of the whole batch. A tensor that no row of
    the batch reached keeps no gradient, as in one process: the optimizer leaves it alone."""
    if learner.team.size == 1:
        return loss
    parameters = list(learner.tuner.parameters().values())
    reached = torch.tensor([parameter.grad is not None for parameter in parameters]).long()
    parts = [torch.zeros_like(p) if p.grad is None else p.grad for p in parameters]
    loss, reached, *sums = learner.team.sum([loss, reached, *parts])
    for parameter, gradient, anywhere in zip(parameters, sums, reached.tolist(), strict=True):
        parameter.grad = gradient if anywhere else None
    return loss


def _backward(learner: Learner, batch: Batch, labels: Tensor, tokens: float, rows: float) -> Tensor:
    """Adds the gradients of a part of a batch, which has the shares `tokens` of its answers' tokens and `rows` of its
    rows. Returns its part of the loss."""
    model, tuner, protections = learner.model, learner.tuner, learner.protections
    for protection in protections:
        protection.before_forward(batch, labels)
    parameters = tuner.parameters()
    half = learner.train.precision == "bfloat16"
    with tuner.attached():  # the backward pass too: layers that are computed again there need the tuner
        with torch.autocast(model.device.type, dtype=torch.bfloat16, enabled=half):
            inputs = tuner.inputs(batch, training=True)
            logits = model.logits(model.read(batch, inputs.front), labels).float()
        answers = F.cross_entropy(logits.flatten(0, 1), labels.flatten(), ignore_index=-100)
        loss = tokens * answers + rows * inputs.extra_loss
        for protection in protections:
            term = protection.loss(parameters, logits, labels)
            loss = loss if term is None else loss + tokens * term
        loss.backward()  # type: ignore[no-untyped-call]
    return loss.detach().double()  # as which parts add up
