"""Bottlenecks after every feed-forward block (Houlsby et al., arXiv 1902.00751)."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import torch
from torch import Tensor, nn

from mcit_core.config import Experiment
from mcit_core.models import Model
from mcit_core.tuners import BaseTuner, Site


class Bottleneck(nn.Module):
    """h -> h + W_up gelu(W_down h), without biases; W_up starts at zero, so that nothing changes at first."""

    def __init__(self, width: int, bottleneck: int) -> None:
        super().__init__()
        self.down = nn.Linear(width, bottleneck, bias=False)
        self.up = nn.Linear(bottleneck, width, bias=False)

    def forward(self, hidden: Tensor) -> Tensor:
        out: Tensor = hidden + self.up(nn.functional.gelu(self.down(hidden)))
        return out


class Adapter(BaseTuner):
    """down.<block> [b, d] and up.<block> [d, b]. PEGP's conditions: ΔW_down x = 0 for the block's outputs x and
    ΔW_up y = 0 for y = gelu(W_down x). No biases: a bias would move every old output whatever is projected."""

    def __init__(self, experiment: Experiment, model: Model) -> None:
        super().__init__(experiment, model)
        self._blocks: list[tuple[nn.Module, Bottleneck]] = []
        self._sites: dict[str, Site] = {}
        for block, (module, side) in model.block_sites().items():
            bottleneck = Bottleneck(model.width, experiment.adapter.bottleneck).to(model.device)
            with torch.no_grad():
                start = 2 * torch.rand(bottleneck.down.weight.shape, generator=self.generator) - 1
                bottleneck.down.weight.copy_(start / math.sqrt(model.width))
                bottleneck.up.weight.zero_()
            self._blocks.append((module, bottleneck))
            for name in ("down", "up"):
                linear = bottleneck.get_submodule(name)
                self.weights[f"{name}.{block}"] = linear.get_parameter("weight")
                self.projected[f"{name}.{block}"] = f"{name}.{block}"
                self._sites[f"{name}.{block}"] = Site(linear, side)

    @contextmanager
    def attached(self) -> Iterator[None]:
        with ExitStack() as stack:
            for module, bottleneck in self._blocks:

                def after(
                    _module: nn.Module, _inputs: object, output: Tensor, bottleneck: Bottleneck = bottleneck
                ) -> Tensor:
                    return bottleneck(output)

                stack.callback(module.register_forward_hook(after).remove)
            yield

    def sites(self) -> dict[str, Site]:
        return self._sites
