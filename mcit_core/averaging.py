"""Moving averages of the tuned weights: LLaCA's two forms and the constant one.

Weights are always those on the OLD average: averaged <- weight * averaged + (1 - weight) * trained. Training itself
goes on un-averaged; at the stage's end the average takes the weights' place. Averages are float32.

Source: Qiao et al., LLaCA, arXiv 2410.10868. `taylor` is the paper's weight, `per_tensor` that of its released code;
what is done where a weight is undefined or outside (0, 1) is a reconstruction.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Literal

import torch
from torch import Tensor, nn

#: the weight where the formula gives none
FALLBACK = 0.99


def _l1(tensors: Sequence[Tensor]) -> Tensor:
    """Sums of absolute entries, one a tensor [n], float64."""
    return torch.stack(torch._foreach_norm(list(tensors), 1)).double()


def _difference(first: Sequence[Tensor], second: Sequence[Tensor]) -> list[Tensor]:
    return list(torch._foreach_sub(list(first), list(second)))


def taylor_terms(
    grads: Sequence[Tensor],
    prev_grads: Sequence[Tensor],
    weights: Sequence[Tensor],
    prev_weights: Sequence[Tensor],
    averaged: Sequence[Tensor],
) -> dict[str, float]:
    """The four L1 norms of the Taylor weight, each over all tensors together."""
    norms = {
        "gradient": _l1(grads).sum(),
        "weight_change": _l1(_difference(weights, prev_weights)).sum(),
        "distance": _l1(_difference(weights, averaged)).sum(),
        "gradient_change": _l1(_difference(grads, prev_grads)).sum(),
    }
    return dict(zip(norms, torch.stack([*norms.values()]).tolist(), strict=True))  # a GPU is waited for once


def taylor_raw(terms: Mapping[str, float]) -> float | None:
    """(‖g_t‖₁ + 1) ‖θ_t - θ_{t-1}‖₁ / (‖θ_t - θ*_{t-1}‖₁ ‖g_t - g_{t-1}‖₁), None where that is not a number."""
    below = terms["distance"] * terms["gradient_change"]
    raw = (terms["gradient"] + 1) * terms["weight_change"] / below if below else math.nan
    return raw if math.isfinite(raw) else None


def settle(raw: float | None, outside: Literal["fallback", "clip"]) -> float:
    """A weight in [0, 1]: 0.99 where undefined; outside (0, 1) 0.99 or clipped."""
    if raw is None:
        return FALLBACK
    if 0 < raw < 1:
        return raw
    return FALLBACK if outside == "fallback" else min(1.0, max(0.0, raw))


def taylor_weight(
    grads: Sequence[Tensor],
    prev_grads: Sequence[Tensor],
    weights: Sequence[Tensor],
    prev_weights: Sequence[Tensor],
    averaged: Sequence[Tensor],
    outside: Literal["fallback", "clip"] = "fallback",
) -> float:
    """The weight on the OLD average, one for all tensors (LLaCA, the paper's form).

    `grads` were taken at `weights`, `prev_grads` at `prev_weights`, one step earlier; `averaged` is the average before
    this step. 0.99 where undefined or, with `outside: fallback`, where the formula leaves (0, 1).
    """
    return settle(taylor_raw(taylor_terms(grads, prev_grads, weights, prev_weights, averaged)), outside)


def _per_tensor_raw(
    grads: Sequence[Tensor], prev_grads: Sequence[Tensor], weights: Sequence[Tensor], averaged: Sequence[Tensor]
) -> list[float | None]:
    norms = [_l1(grads), _l1(_difference(weights, averaged)), _l1(_difference(grads, prev_grads))]
    raws: list[float | None] = []
    for gradient, distance, change in torch.stack(norms, 1).tolist():
        below = distance * change
        new = 2 * (1 + gradient) / below if below else math.nan
        raws.append(1 - new if math.isfinite(new) else None)
    return raws


def per_tensor_weight(grad: Tensor, prev_grad: Tensor, weight: Tensor, averaged: Tensor) -> float:
    """The weight on the OLD average of one tensor (LLaCA, the released code's form): 1 minus
    2 (1 + ‖g‖₁) / (‖θ - θ*‖₁ ‖g - g_prev‖₁), which is the weight on the new; 0.99 where undefined or outside (0, 1)."""
    return settle(_per_tensor_raw([grad], [prev_grad], [weight], [averaged])[0], "fallback")


class Averager:
    """The average of one stage. Per step: `see_gradients()` between backward and clipping, `see_step()` after the
    optimizer; `finish()` after the last.

    `fixed` and `taylor` follow the paper: the weight comes from the gradient g_t at θ_t, and with it θ_t itself enters
    the average, which does not hold it yet; the weights after the last step enter with the last weight. `per_tensor`
    follows the released code: all happens after the optimizer's step, with clipped gradients, and the average begins as
    the weights after the first step.

    `trace` has a value per step: `weight` (the mean over tensors for per_tensor), for taylor the norms behind it and
    `raw` (None where undefined), and `outside` and `undefined`: the share of tensors whose weight was. All are None for
    the first step of per_tensor, which needs no weight.
    """

    def __init__(
        self,
        parameters: Mapping[str, nn.Parameter],
        kind: Literal["fixed", "taylor", "per_tensor"],
        weight: float = FALLBACK,
        outside: Literal["fallback", "clip"] = "fallback",
    ) -> None:
        self.parameters, self.kind, self.weight, self.outside = dict(parameters), kind, weight, outside
        self.averaged: list[Tensor] = []  # until the first step, so that a tuner may begin its stage first
        self.trace: dict[str, list[float | None]] = {}
        self._grads_before: list[Tensor] | None = None
        self._weights_before: list[Tensor] = []

    def _record(self, **values: float | None) -> None:
        for name, value in values.items():
            self.trace.setdefault(name, []).append(value)

    def _weights(self, keep: bool = False) -> list[Tensor]:
        """The weights as they are now, float32; `keep`: copies that the next step leaves alone."""
        found = [parameter.detach().float() for parameter in self.parameters.values()]
        return [weights.clone() for weights in found] if keep else found

    def _gradients(self) -> list[Tensor]:
        return [
            torch.zeros_like(p, dtype=torch.float32) if p.grad is None else p.grad.float().clone()
            for p in self.parameters.values()
        ]

    @torch.no_grad()
    def see_gradients(self) -> None:
        """Take the weights that the gradients were taken at into the average."""
        if self.kind == "per_tensor":
            return
        weights = self._weights(keep=self.kind == "taylor")
        self.averaged = self.averaged or self._weights(keep=True)
        if self.kind == "fixed":
            self._record(weight=self.weight)
        else:
            self._weigh(weights)
        self._enter(weights)

    def _weigh(self, weights: list[Tensor]) -> None:
        """Set the Taylor weight of this step."""
        grads = self._gradients()
        if self._grads_before is None:
            gradient = _l1(grads).sum().item()
            terms = {"gradient": gradient, "weight_change": 0.0, "distance": 0.0, "gradient_change": 0.0}
        else:
            terms = taylor_terms(grads, self._grads_before, weights, self._weights_before, self.averaged)
        self._grads_before, self._weights_before = grads, weights
        raw = taylor_raw(terms)
        self.weight = settle(raw, self.outside)
        outside = raw is not None and not 0 < raw < 1
        self._record(weight=self.weight, raw=raw, undefined=float(raw is None), outside=float(outside), **terms)

    def _enter(self, weights: list[Tensor]) -> None:
        torch._foreach_lerp_(self.averaged, weights, 1 - self.weight)

    @torch.no_grad()
    def see_step(self) -> None:
        """For `per_tensor`: take the weights after the optimizer's step into the average."""
        if self.kind != "per_tensor":
            return
        weights, grads = self._weights(), self._gradients()
        before, self._grads_before = self._grads_before, grads
        if before is None:
            self.averaged = self._weights(keep=True)
            self._record(weight=None, undefined=None, outside=None)
            return
        raws = _per_tensor_raw(grads, before, weights, self.averaged)
        settled = [settle(raw, "fallback") for raw in raws]
        for average, new, old in zip(self.averaged, weights, settled, strict=True):
            average.lerp_(new, 1 - old)
        self._record(
            weight=sum(settled) / len(raws),
            undefined=sum(raw is None for raw in raws) / len(raws),
            outside=sum(raw is not None and not 0 < raw < 1 for raw in raws) / len(raws),
        )

    @torch.no_grad()
    def finish(self) -> dict[str, float]:
        """Put the average in the weights' place; the means of the trace."""
        if self.kind != "per_tensor":
            self._enter(self._weights())
        for parameter, average in zip(self.parameters.values(), self.averaged, strict=True):
            parameter.copy_(average)
        means: dict[str, float] = {}
        for name, values in self.trace.items():
            known = [value for value in values if value is not None]
            if known:
                means[f"ema/mean_{name}"] = sum(known) / len(known)
        return means
