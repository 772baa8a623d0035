"""MoELoRA: a mixture of low-rank experts on every linear site, mixed anew for every token.

    W x + alpha / r * sum_e w_e(x) B_e A_e x,    w(x) = softmax(G x)

Source: Chen et al., CoIN, arXiv 2403.08350: all experts mixed by a softmax router, the total rank r shared evenly by
them. From its published code: a router per site that reads the site's input token by token (as LoRAMoE's), alpha over
the total rank, B = 0 at the start, no load-balancing loss. Reconstructed: the sites (those of our other low-rank
tuners), no dropout, and the start: A and G uniform within 1 / sqrt(d_in), where theirs is so for G and normal(0, 0.01)
for A.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from mcit_core.config import Experiment, Value
from mcit_core.models import Model
from mcit_core.tuners import BaseTuner, Site

DEFAULTS: dict[str, Any] = {"experts": 4, "rank": 8, "alpha": 16}


class Experts(nn.Module):
    """All experts of a site, stacked: rows [e r/E, (e + 1) r/E) of `down` and the same columns of `up` are expert e."""

    def __init__(self, width: int, out: int, experts: int, rank: int, alpha: float) -> None:
        super().__init__()
        self.down = nn.Linear(width, rank, bias=False)
        self.up = nn.Linear(rank, out, bias=False)
        self.router = nn.Linear(width, experts, bias=False)
        self.each, self.scale = rank // experts, alpha / rank

    def forward(self, x: Tensor) -> Tensor:
        gates = self.router(x).softmax(-1).repeat_interleave(self.each, -1)
        out: Tensor = self.scale * self.up(gates * self.down(x))
        return out


class MoeLora(BaseTuner):
    """A.<site> [r, d_in], B.<site> [d_out, r] and the router G.<site> [E, d_in]; B starts at zero.

    PEGP's conditions: ΔA x = 0 and ΔG x = 0 for the layer's inputs x, ΔB y = 0 for y = the gated A x.
    """

    def __init__(self, experiment: Experiment, model: Model) -> None:
        super().__init__(experiment, model)
        options = {**DEFAULTS, **experiment.options}
        self._layers: list[tuple[nn.Module, Experts]] = []
        self._sites: dict[str, Site] = {}
        for site, side in model.linear_sites().items():
            layer = model.language_model.get_submodule(site)
            out, width = layer.get_parameter("weight").shape
            experts = Experts(width, out, **options).to(model.device)
            with torch.no_grad():  # nn.Linear draws from the global generator; nothing here may
                for linear in (experts.down, experts.router):
                    start = 2 * torch.rand(linear.weight.shape, generator=self.generator) - 1
                    linear.weight.copy_(start / math.sqrt(width))
                experts.up.weight.zero_()
            self._layers.append((layer, experts))
            for matrix, linear, module in (
                ("A", experts.down, layer),
                ("B", experts.up, experts.up),
                ("G", experts.router, layer),
            ):
                self.weights[f"{matrix}.{site}"] = linear.get_parameter("weight")
                self.projected[f"{matrix}.{site}"] = f"{matrix}.{site}"
                self._sites[f"{matrix}.{site}"] = Site(module, side)

    @classmethod
    def check_options(cls, options: dict[str, Value]) -> None:
        for key in options:
            if key not in DEFAULTS:
                names = ", ".join(f"options.{name}" for name in DEFAULTS)
                raise ValueError(f"options.{key} is unknown to tuner moe_lora; expected one of {names}")
        values: dict[str, Any] = {**DEFAULTS, **options}
        for key in ("experts", "rank"):
            if type(values[key]) is not int or values[key] < 1:
                raise ValueError(f"options.{key}: expected a whole number of at least 1, got {values[key]!r}")
        if type(values["alpha"]) not in (int, float) or not 0 < values["alpha"] < math.inf:
            raise ValueError(f"options.alpha: expected a finite number above 0, got {values['alpha']!r}")
        if values["rank"] % values["experts"]:
            allowed = f"expected a multiple of options.experts ({values['experts']})"
            raise ValueError(f"options.rank: {allowed}, got {values['rank']}")

    @contextmanager
    def attached(self) -> Iterator[None]:
        with ExitStack() as stack:
            for layer, experts in self._layers:

                def add(
                    _layer: nn.Module, inputs: tuple[Tensor, ...], output: Tensor, experts: Experts = experts
                ) -> Tensor:
                    return output + experts(inputs[0])

                stack.callback(layer.register_forward_hook(add).remove)
            yield

    def sites(self) -> dict[str, Site]:
        return self._sites
