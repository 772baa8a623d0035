"""The training step: forward, backward, project, clip, optimise, project the realised change."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mcit_core.config import Train
from mcit_core.models import FrozenFeatures, Model
from mcit_core.projection import Space
from mcit_core.tuners import Tuner


def train_step(
    model: Model,
    tuner: Tuner,
    features: FrozenFeatures,
    labels: Tensor,
    optimizer: torch.optim.Optimizer,
    space: Space,
    train: Train,
    measure: bool = False,
) -> tuple[float, dict[str, float]]:
    """One optimizer step. Returns the loss and, if asked, the raw gradient's energy shares.

    Adam's per-element scaling leaves the subspace, so the change it realised is projected as well as the gradient.
    Raises FloatingPointError where the loss is not finite.
    """
    half = train.precision == "bfloat16"
    with torch.autocast(model.device.type, dtype=torch.bfloat16, enabled=half):
        inputs = tuner.inputs(features, training=True)
        logits = model.logits(model.encoder(inputs.embedded, inputs.mask), labels)
    loss = F.cross_entropy(logits.float().flatten(0, 1), labels.flatten(), ignore_index=-100) + inputs.extra_loss
    if not torch.isfinite(loss):
        raise FloatingPointError(f"the loss is {loss.item()}; lower train.lr or set train.clip")
    optimizer.zero_grad(set_to_none=True)
    loss.backward()  # type: ignore[no-untyped-call]

    parameters = tuner.parameters()
    shares: dict[str, float] = {}
    for name in tuner.projected:
        gradient = parameters[name].grad
        assert gradient is not None, name
        if measure:
            shares = space.energy_shares(gradient)
        if space.allowed is not None:
            gradient.copy_(space.project(gradient))
    if train.clip is not None:
        nn.utils.clip_grad_norm_(parameters.values(), train.clip)
    before = {name: parameter.detach().clone() for name, parameter in parameters.items()}
    optimizer.step()
    with torch.no_grad():
        for name, parameter in parameters.items():
            if name in tuner.projected and space.allowed is not None:
                old = before[name].double()
                parameter.copy_(old + space.project(parameter.double() - old))
            frozen = tuner.frozen_rows(name)
            if frozen is not None:
                parameter[frozen] = before[name][frozen]
    return loss.item(), shares
