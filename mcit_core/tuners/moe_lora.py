"""A mixture of low-rank experts on the attention's query and value matrices, chosen token by token.

Source: MoELoRA of CoIN, Chen et al., arXiv 2403.08350: experts that share the rank of one LoRA, mixed by a softmax over
a linear router. Reconstructed: the router reads the layer's own input, there is no load-balancing term, and routers
start at zero, so that every expert has the same weight at first.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from mcit_core.config import Experiment
from mcit_core.models import Model
from mcit_core.tuners import BaseTuner

DEFAULTS = {"experts": 4, "rank": 8, "alpha": 16}


class MoeLora(BaseTuner):
    """A.<site> [r, d_in] and B.<site> [d_out, r], r / E rows and columns of them for each of E experts, and
    router.<site> [E, d_in]; the layer gains alpha / r * sum_e softmax(router x)_e B_e A_e x, and B starts at zero.

    `options`: experts E, rank r of all experts together, alpha. Raises ValueError for others, for what is no positive
    whole number, and where the experts cannot share the rank evenly.
    """

    def __init__(self, experiment: Experiment, model: Model) -> None:
        super().__init__(experiment, model)
        options = _checked(experiment.options)
        self.experts, rank = options["experts"], options["rank"]
        self.scale, self.share = options["alpha"] / rank, rank // self.experts
        self._layers = {site: model.language_model.get_submodule(site) for site in model.linear_sites()}
        for site, layer in self._layers.items():
            wide_out, wide_in = layer.get_parameter("weight").shape
            start = (2 * torch.rand(rank, wide_in, generator=self.generator) - 1) / math.sqrt(wide_in)
            self.weights[f"A.{site}"] = self.parameter(start)
            self.weights[f"B.{site}"] = self.parameter(torch.zeros(wide_out, rank))
            self.weights[f"router.{site}"] = self.parameter(torch.zeros(self.experts, wide_in))

    @contextmanager
    def attached(self) -> Iterator[None]:
        with ExitStack() as stack:
            for site, layer in self._layers.items():

                def add(_layer: nn.Module, inputs: tuple[Any, ...], output: Tensor, site: str = site) -> Tensor:
                    x = inputs[0]
                    gates = (x @ self.weights[f"router.{site}"].T).softmax(-1).repeat_interleave(self.share, -1)
                    return output + self.scale * (
                        (x @ self.weights[f"A.{site}"].T * gates) @ self.weights[f"B.{site}"].T
                    )

                stack.callback(layer.register_forward_hook(add).remove)
            yield


def _checked(options: dict[str, Any]) -> dict[str, int]:
    unknown = sorted(set(options) - set(DEFAULTS))
    if unknown:
        raise ValueError(f"options.{unknown[0]}: moe_lora knows {', '.join(f'options.{name}' for name in DEFAULTS)}")
    values = {**DEFAULTS, **options}
    for name, value in values.items():
        if type(value) is not int or value < 1:
            raise ValueError(f"options.{name}: expected a whole number of at least 1, got {value!r}")
    experts, rank = values["experts"], values["rank"]
    if rank % experts:
        raise ValueError(f"options.rank: {experts} experts (options.experts) cannot share a rank of {rank} evenly")
    return values
